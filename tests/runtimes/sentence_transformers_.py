from common import report_texts
from sentence_transformers import SentenceTransformer


def embed(folder, texts):
    return SentenceTransformer(str(folder), backend="onnx", device="cpu").encode(texts)


report_texts(["sentence-transformers", "transformers", "optimum-onnx", "onnxruntime"], embed)
