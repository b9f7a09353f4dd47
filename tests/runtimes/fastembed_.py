"""fastembed pools the first output of the model that its table names, from a folder as it was written."""
from common import report_texts
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType


def embed(folder, texts):
    TextEmbedding.add_custom_model(
        model="golden",
        pooling=PoolingType.MEAN,
        normalization=False,
        sources=ModelSource(hf="golden/golden"),
        dim=32,
        model_file="onnx/model.onnx",
    )
    return list(TextEmbedding("golden", specific_model_path=str(folder)).embed(texts))


report_texts(["fastembed", "onnxruntime"], embed)
