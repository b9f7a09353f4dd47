#!/usr/bin/env bash
# ONNX Runtime's CPU LayerNormalization takes the variance as E[x²] − E[x]², in f32, up to release 1.26.
#
# Expected: rows of mean 1000 and deviation 0.1, well within f32, are normalized to some 1e-3: the two-pass formula
# in f32 does so.
# Seen: with 1.26.0 rows are NaN, as the difference of the two large numbers is negative; 1.27.0 is right.
# Why it matters: activations with a large common part, as residual streams have, lose their small part there.
#
# Versions: onnxruntime 1.26.0 and 1.27.0, onnx 1.23.2, numpy 2.4.6 from PyPI. Output on 2026-11-28:
#   onnxruntime 1.26.0: off by nan; two passes in f32: 5.5e-04
#   onnxruntime 1.27.0: off by 3.8e-03; two passes in f32: 5.5e-04
# Exits 1 where that is not seen any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
pip onnx==1.23.2 numpy==2.4.6
cat > "$folder/normalize.py" <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

rows = (1000 + 0.1 * np.random.default_rng(0).standard_normal((8, 256))).astype(np.float32)
one = np.ones(256, np.float32)
node = helper.make_node("LayerNormalization", ["x", "scale"], ["y"], epsilon=1e-12)
graph = helper.make_graph(
    [node],
    "normalize",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows.shape)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, rows.shape)],
    [helper.make_tensor("scale", TensorProto.FLOAT, [256], one)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
(found,) = session.run(None, {"x": rows})


def normalized(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True))


exact = normalized(rows.astype(np.float64))
worst = [float(np.abs(y - exact).max()) for y in (found, normalized(rows))]
print(f"onnxruntime {onnxruntime.__version__}: off by {worst[0]:.1e}; two passes in f32: {worst[1]:.1e}")
right = worst[0] < 0.01  # NaN is not.
sys.exit(0 if right == (sys.argv[1] == "right") else 1)
PYTHON
pip onnxruntime==1.26.0
"$folder/venv/bin/python" "$folder/normalize.py" wrong
pip onnxruntime==1.27.0
"$folder/venv/bin/python" "$folder/normalize.py" right
