#!/usr/bin/env bash
# ONNX Runtime 1.27 and newer copy an input when it is bound for the OpenVINO plug-in; later writes are not seen.
#
# Expected: an input that is bound once (IOBinding) is read where it lies, so that whoever writes other numbers into it
# runs on these, as on the processor's own provider and with ONNX Runtime 1.24 and the same plug-in.
# Seen: the plug-in's memory has a name of its own, so that 1.27.0 and 1.32.0 take the host's tensor for one on
# another device and copy it while it is bound; every later run computes with the first numbers, without a word.
# Why it matters: programs that bind buffers once and refill them (training steps, decoders) get the same answer for
# ever, or NaN where the buffers were empty when they were bound. Bind anew before each run.
#
# Versions: onnxruntime 1.24.4, 1.27.0 and 1.32.0, onnxruntime-ep-openvino 1.8.1, onnx 1.23.1, numpy 2.4.6 from PyPI.
# Output on 2026-11-29, a sum of three ones, then of three tens:
#   onnxruntime 1.24.4: processor 3 30, plug-in 3 30
#   onnxruntime 1.27.0: processor 3 30, plug-in 3 3
#   onnxruntime 1.32.0: processor 3 30, plug-in 3 3
# Exits 1 where that is not seen any more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export ORT_DISABLE_TELEMETRY=1
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
pip onnx==1.23.1 numpy==2.4.6 onnxruntime-ep-openvino==1.8.1
cat > "$folder/run.py" <<'PYTHON'
import glob
import os

import numpy as np
import onnxruntime
import onnxruntime_ep_openvino
from onnx import TensorProto, helper

graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])],
    "sum",
    [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [1, 3]), ("w", [3, 1]))],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def answers(options, **providers):
    session = onnxruntime.InferenceSession(model, options, **providers)
    bound = {name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ones(shape, np.float32)) for name, shape in (("x", (1, 3)), ("w", (3, 1)))}
    binding = session.io_binding()
    for name, value in bound.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("y", "cpu")
    found = []
    for number in (1, 10):
        bound["x"].update_inplace(np.full((1, 3), number, np.float32))
        session.run_with_iobinding(binding)
        found.append(f"{binding.copy_outputs_to_cpu()[0].item():.0f}")
    return " ".join(found)


processor = answers(onnxruntime.SessionOptions(), providers=["CPUExecutionProvider"])
package = os.path.dirname(onnxruntime_ep_openvino.__file__)
[library] = glob.glob(f"{package}/**/libonnxruntime_providers_openvino_plugin.so", recursive=True)
onnxruntime.register_execution_provider_library("openvino_plugin", library)
devices = [device for device in onnxruntime.get_ep_devices() if "OpenVINO" in device.ep_name]
options = onnxruntime.SessionOptions()
options.add_provider_for_devices(devices[:1], {})
print(f"onnxruntime {onnxruntime.__version__}: processor {processor}, plug-in {answers(options)}")
PYTHON
for version in 1.24.4 1.27.0 1.32.0; do
    pip onnxruntime==$version
    "$folder/venv/bin/python" "$folder/run.py" 2> /dev/null
done | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
onnxruntime 1.24.4: processor 3 30, plug-in 3 30
onnxruntime 1.27.0: processor 3 30, plug-in 3 3
onnxruntime 1.32.0: processor 3 30, plug-in 3 3
EXPECTED
