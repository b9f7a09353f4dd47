from common import report
from tinygrad import Tensor
from tinygrad.nn.onnx import OnnxRunner


def run(model):
    runner = OnnxRunner(model)
    return lambda ids, mask: {
        name: value.numpy()
        for name, value in runner({"input_ids": Tensor(ids), "attention_mask": Tensor(mask)}).items()
    }


report(["tinygrad"], run, fresh=True, note="a runner for each shape: the first call fixes the free sizes")
