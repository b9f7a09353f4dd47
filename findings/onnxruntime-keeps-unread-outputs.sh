#!/usr/bin/env bash
# ONNX Runtime keeps an output that no node reads until the whole run is over.
#
# Expected: a value is freed after its last reader, and one without any reader at once.
# Seen: 40 nodes in a chain, each with a second output of 16 MB. Where every second output is read by the next node,
# the run takes 61 MiB; where nobody reads them, all 40 stay to the end: 656 MiB. An optional output that
# the model leaves unnamed is not kept.
# Why it matters: what a training graph computes and does not use adds up over the layers; leave optional outputs
# unnamed. A profile of nodes and times does not show it.
#
# Versions: onnxruntime 1.26.0 and 1.32.0, onnx 1.23.2, numpy 2.4.6 from PyPI. Output on 2026-11-28:
#   onnxruntime 1.26.0: second halves read: 61 MiB, not read: 656 MiB
#   onnxruntime 1.32.0: second halves read: 61 MiB, not read: 656 MiB
# Exits 1 where that is not seen any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export ORT_DISABLE_TELEMETRY=1
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
pip onnx==1.23.2 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import resource
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

NODES, ROWS = 40, 8_000_000
read = sys.argv[1] == "read"
nodes, x = [], "x"
for i in range(NODES):
    halves = [f"first{i}", f"second{i}"]
    nodes.append(helper.make_node("Split", [x], halves, axis=0, num_outputs=2))
    nodes.append(helper.make_node("Concat", [halves[0], halves[1 if read else 0]], [f"x{i}"], axis=0))
    x = f"x{i}"
nodes.append(helper.make_node("ReduceSum", [x], ["y"], keepdims=0))
graph = helper.make_graph(
    nodes,
    "chain",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
options = onnxruntime.SessionOptions()
options.enable_cpu_mem_arena = options.enable_mem_pattern = False
session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
data = np.zeros(ROWS, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
session.run(None, {"x": data})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
PYTHON
for version in 1.26.0 1.32.0; do
    pip onnxruntime==$version
    read=$("$folder/venv/bin/python" "$folder/run.py" read)
    unread=$("$folder/venv/bin/python" "$folder/run.py" unread)
    echo "onnxruntime $version: second halves read: $read MiB, not read: $unread MiB"
    [ "$unread" -gt $((read + 400)) ]
done
