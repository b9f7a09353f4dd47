import onnxruntime
from common import report


def run(model):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda ids, mask: dict(zip(names, session.run(None, {"input_ids": ids, "attention_mask": mask})))


report(["onnxruntime"], run)
