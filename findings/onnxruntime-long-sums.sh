#!/usr/bin/env bash
# ONNX Runtime's CPU reductions of long float vectors lose four digits: they add in a few running sums.
#
# Expected: the sum of 16 million squares to about 1e-6, as sums in blocks or pairs give it; numpy's are that good.
# Seen: ReduceSumSquare is 0.13 % too small, ReduceL2 0.065 %, ReduceSum and ReduceMean 0.03 %; always too small, as a
# running sum grows large beside what is added to it.
# Why it matters: the norm of all gradients, by which they are clipped, is such a sum. In rows of 4,096 first, and then
# the rows' sums, the same operators are right to 1e-6.
#
# Versions: onnxruntime 1.27.0 and onnx 1.20.0 from PyPI, numpy 2.4.6. Output on 2026-11-28:
#   ReduceSumSquare -1.3e-03, in rows first 1.6e-07
#   ReduceSum -3.0e-04, in rows first 8.4e-08
# Exits 1 where that is not seen any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.27.0 onnx==1.20.0 numpy==2.4.6
cat > "$folder/sums.py" <<'PYTHON'
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

values = np.abs(np.random.default_rng(0).standard_normal(1 << 24).astype(np.float32))
lost = []
for operator, exact in [
    ("ReduceSumSquare", (values.astype(np.float64) ** 2).sum()),
    ("ReduceSum", values.astype(np.float64).sum()),
]:
    errors = []
    for shape in ([1 << 24], [1 << 12, 1 << 12]):
        if len(shape) == 1:
            nodes, more = [helper.make_node(operator, ["x"], ["y"], keepdims=0)], []
        else:
            nodes = [
                helper.make_node(operator, ["x", "last"], ["rows"], keepdims=0),
                helper.make_node("ReduceSum", ["rows"], ["y"], keepdims=0),
            ]
            more = [helper.make_tensor("last", TensorProto.INT64, [1], [1])]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
        graph = helper.make_graph(nodes, "sum", [x], [y], more)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, {"x": values.reshape(shape)})[0]
        errors.append(float(found) / exact - 1)
    print(f"{operator} {errors[0]:.1e}, in rows first {abs(errors[1]):.1e}")
    lost.append(abs(errors[0]) > 1e-4 and abs(errors[1]) < 1e-6)
raise SystemExit(not all(lost))
PYTHON
"$folder/venv/bin/python" "$folder/sums.py"
