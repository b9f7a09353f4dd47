"""IREE: imported to MLIR and compiled for the processor, with free sizes."""
import subprocess
import sys
import tempfile
from pathlib import Path

import iree.runtime as runtime
from common import report


def run(model):
    tools, folder = Path(sys.executable).parent, Path(tempfile.mkdtemp())
    mlir, compiled = folder / "model.mlir", folder / "model.vmfb"
    subprocess.run([tools / "iree-import-onnx", model, "-o", mlir], check=True, stderr=subprocess.DEVNULL)
    flags = ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu", "--iree-llvmcpu-target-cpu=host"]
    subprocess.run([tools / "iree-compile", mlir, "-o", compiled, *flags], check=True, stderr=subprocess.DEVNULL)
    module = runtime.load_vm_flatbuffer_file(str(compiled), driver="local-task")
    text = Path(model).read_bytes()
    names = [name for name in ("last_hidden_state", "logits", "sentence_embedding") if name.encode() in text]

    def infer(ids, mask):
        found = module.main_graph(ids, mask)
        found = found if isinstance(found, (list, tuple)) else [found]
        return {name: value.to_host() for name, value in zip(names, found)}

    return infer


report(["iree-base-runtime", "iree-base-compiler"], run, note="compiled by iree-compile")
