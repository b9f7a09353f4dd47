"""ONNX Runtime's preparation for quantization, on whose result the seven shapes are run."""
import tempfile
from pathlib import Path

import onnxruntime
from common import report
from onnxruntime.quantization.shape_inference import quant_pre_process


def run(model):
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(model, prepared)
        session = onnxruntime.InferenceSession(prepared, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda ids, mask: dict(zip(names, session.run(None, {"input_ids": ids, "attention_mask": mask})))


report(["onnxruntime", "onnx", "sympy"], run)
