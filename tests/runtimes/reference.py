import onnx
from common import report
from onnx.reference import ReferenceEvaluator


def run(model):
    onnx.checker.check_model(model, full_check=True)
    session = ReferenceEvaluator(model)
    return lambda ids, mask: dict(
        zip(session.output_names, session.run(None, {"input_ids": ids, "attention_mask": mask}))
    )


report(["onnx"], run, note="onnx.checker with full_check before")
