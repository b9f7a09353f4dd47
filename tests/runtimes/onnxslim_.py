import onnx
import onnxruntime
import onnxslim
from common import report


def run(model):
    simplified = onnxslim.slim(onnx.load(model))
    session = onnxruntime.InferenceSession(simplified.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda ids, mask: dict(zip(names, session.run(None, {"input_ids": ids, "attention_mask": mask})))


report(["onnxslim", "onnxruntime"], run)
