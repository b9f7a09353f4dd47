import numpy as np
import onnx
import tvm
from common import report
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx


def run(model):
    loaded = onnx.load(model)
    module = from_onnx(loaded, keep_params_in_input=False)
    module = relax.get_pipeline("zero")(module)
    machine = relax.VirtualMachine(relax.build(module, target="llvm"), tvm.cpu())
    names = [output.name for output in loaded.graph.output]

    def infer(ids, mask):
        found = machine["main"](tvm.runtime.tensor(ids), tvm.runtime.tensor(mask))
        found = [found] if isinstance(found, tvm.runtime.Tensor) else list(found)
        return {name: np.array(value.numpy()) for name, value in zip(names, found)}

    return infer


report(["apache-tvm"], run)
