"""ONNX Runtime's own quantization by its default, behind its preparation; the difference is that of 8 bits."""
import tempfile
from pathlib import Path

import onnxruntime
from common import report
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process


def run(model):
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = str(Path(folder) / "prepared.onnx"), str(Path(folder) / "quantized.onnx")
        quant_pre_process(model, prepared)
        quantize_dynamic(prepared, quantized)
        session = onnxruntime.InferenceSession(quantized, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda ids, mask: dict(zip(names, session.run(None, {"input_ids": ids, "attention_mask": mask})))


report(["onnxruntime", "onnx", "sympy"], run, note="the difference is that of its 8 bits")
