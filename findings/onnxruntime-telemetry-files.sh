#!/usr/bin/env bash
# ONNX Runtime's builds for Linux keep a queue of events about the machine in the user's cache folder.
#
# Expected: making a session writes nothing, as in releases before; and `disable_telemetry_events()`, called before
# any session, keeps events from being made.
# Seen: with 1.32.0 importing the package and making one session leaves a device id and an SQLite queue below
# Microsoft/DeveloperTools/.onnxruntime in the cache folder, and a file .ses in the temporary folder; so it does where
# `disable_telemetry_events()` is called first. ORT_DISABLE_TELEMETRY=1 in the environment leaves nothing. 1.27.0
# leaves nothing at all.
# Why it matters: machines that must not report, read-only homes, tests that compare folders.
#
# Versions: onnxruntime 1.27.0 and 1.32.0, onnx 1.23.2, numpy 2.4.6 from PyPI. Output on 2026-11-28:
#   1.27.0 as it is: nothing
#   1.32.0 as it is: .ses .onnxruntime
#   1.32.0 disable_telemetry_events(): .ses .onnxruntime
#   1.32.0 ORT_DISABLE_TELEMETRY=1: nothing
# Exits 1 where that is not seen any more. Each line runs in folders of its own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
pip onnx==1.23.2 numpy==2.4.6
cat > "$folder/session.py" <<'PYTHON'
import sys

import onnxruntime
from onnx import TensorProto, helper

if sys.argv[1] == "call":
    onnxruntime.disable_telemetry_events()
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
PYTHON
# What a process leaves: left NAME=VALUE... -- ARGUMENT
left() {
    local own="$folder/own"
    rm -rf "$own" && mkdir -p "$own/home" "$own/cache" "$own/tmp"
    env -u ORT_DISABLE_TELEMETRY HOME="$own/home" XDG_CACHE_HOME="$own/cache" TMPDIR="$own/tmp" "$1" \
        "$folder/venv/bin/python" "$folder/session.py" "$2"
    found=$(cd "$own" && find . \( -name .ses -o -name .onnxruntime \) -printf '%f\n' | sort -r | tr '\n' ' ')
    found=${found:-nothing}
}
pip onnxruntime==1.27.0
left NOTHING=1 plain; echo "1.27.0 as it is: $found"; old=$found
pip onnxruntime==1.32.0
left NOTHING=1 plain; echo "1.32.0 as it is: $found"; plain=$found
left NOTHING=1 call; echo "1.32.0 disable_telemetry_events(): $found"; call=$found
left ORT_DISABLE_TELEMETRY=1 plain; echo "1.32.0 ORT_DISABLE_TELEMETRY=1: $found"; off=$found
[ "$old" = nothing ] && [ "$plain" != nothing ] && [ "$call" != nothing ] && [ "$off" = nothing ]
