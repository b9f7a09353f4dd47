"""ONNX Runtime's offline fusions: every LayerNormalization takes in the sum before it."""
import collections
import tempfile
from pathlib import Path

import onnx
import onnxruntime
from common import report
from onnxruntime.transformers import optimizer


def run(model):
    fused = optimizer.optimize_model(model, model_type="bert", num_heads=4, hidden_size=0, opt_level=0)
    counts = collections.Counter(node.op_type for node in fused.model.graph.node)
    # The normalization of the embeddings is fused with the lookups before it, the head's has no sum before it.
    kinds = ("SkipLayerNormalization", "EmbedLayerNormalization")
    found = sum(counts[kind] for kind in kinds)
    wanted = sum(node.op_type == "LayerNormalization" for node in onnx.load(model).graph.node)
    wanted -= any(output.name == "logits" for output in fused.model.graph.output)
    if found != wanted:
        raise RuntimeError(f"{found} of {wanted} sums before a normalization are fused: {dict(counts)}")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "fused.onnx")
        fused.save_model_to_file(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda ids, mask: dict(zip(names, session.run(None, {"input_ids": ids, "attention_mask": mask})))


report(["onnxruntime", "onnx"], run)
