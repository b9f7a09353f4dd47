import onnx
import onnxruntime
import onnxsim
from common import report


def run(model):
    simplified, valid = onnxsim.simplify(onnx.load(model))
    assert valid
    session = onnxruntime.InferenceSession(simplified.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda ids, mask: dict(zip(names, session.run(None, {"input_ids": ids, "attention_mask": mask})))


report(["onnxsim", "onnxruntime"], run)
