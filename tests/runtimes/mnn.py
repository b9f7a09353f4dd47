"""MNN reads its own format: its converter is part of the package."""
import subprocess
import sys
import tempfile
from pathlib import Path

import MNN
import numpy as np
from common import report
from MNN import expr


def run(model):
    folder = tempfile.mkdtemp()
    converted = str(Path(folder) / "model.mnn")
    convert = [str(Path(sys.executable).parent / "mnnconvert"), "-f", "ONNX", "--modelFile", model, "--MNNModel", converted, "--bizCode", "x"]
    subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
    names = [name for name in ("last_hidden_state", "logits", "sentence_embedding") if name.encode() in Path(model).read_bytes()]
    net = MNN.nn.load_module_from_file(converted, ["input_ids", "attention_mask"], names)

    def infer(ids, mask):
        inputs = [expr.const(x.astype(np.int32), list(x.shape), expr.NCHW, expr.int) for x in (ids, mask)]
        return {name: np.array(value.read()) for name, value in zip(names, net.onForward(inputs))}

    return infer


report(["MNN"], run, note="`mnnconvert`; inputs of 32 bits; its approximations are less exact")
