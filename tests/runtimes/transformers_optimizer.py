"""ONNX Runtime's offline fusions: every LayerNormalization but, where a model begins with one, the first takes its sum in."""
import collections
import tempfile
from pathlib import Path

import onnx
import onnxruntime
from common import report
from onnxruntime.transformers import optimizer


def run(model):
    heads = 4
    fused = optimizer.optimize_model(model, model_type="bert", num_heads=heads, hidden_size=0, opt_level=0)
    counts = collections.Counter(node.op_type for node in fused.model.graph.node)
    print(dict(counts))
    wanted = sum(node.op_type == "LayerNormalization" for node in onnx.load(model).graph.node)
    if counts["SkipLayerNormalization"] != wanted:
        raise RuntimeError(f"SkipLayerNormalization {counts['SkipLayerNormalization']} of {wanted}")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "fused.onnx")
        fused.save_model_to_file(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda ids, mask: dict(zip(names, session.run(None, {"input_ids": ids, "attention_mask": mask})))


report(["onnxruntime", "onnx"], run)
