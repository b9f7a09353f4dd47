"""Writes toy/: training artifacts by ONNX Runtime's own tool, and what its Python API makes of them.

Run with the packages onnxruntime-training-cpu==1.19.2, onnx, numpy and torch:

    python make_toy.py

The model is a classifier of two layers with a boolean input, so that every kind of tensor that the engine
takes is there. The training graph gets one more output, the norm of the accumulated gradients.
"""

import json
import pathlib
import shutil

import numpy
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.training import api, artifacts

HERE = pathlib.Path(__file__).parent / "toy"
BATCH, WIDTH, HIDDEN, CLASSES = 6, 4, 8, 3
WEIGHT_DECAY, LEARNING_RATE, BETAS, EPSILON, CLIP = 0.1, 0.05, (0.9, 0.98), 1e-6, 1.0
UPDATES, ACCUMULATION = 5, 2
UNDECAYED = ["first.bias", "second.bias"]

random = numpy.random.default_rng(7)


def parameters():
    draw = lambda *shape: random.standard_normal(shape).astype(numpy.float32)
    return {
        "first.weight": draw(WIDTH, HIDDEN),
        "first.bias": draw(HIDDEN),
        "second.weight": draw(HIDDEN, CLASSES),
        "second.bias": draw(CLASSES),
    }


def forward_model(values):
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Where", ["keep", "features", "nothing"], ["kept"]),
        helper.make_node("Gemm", ["kept", "first.weight", "first.bias"], ["before"]),
        helper.make_node("Relu", ["before"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "second.weight", "second.bias"], ["logits"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in values.items()]
    initializers.append(numpy_helper.from_array(numpy.zeros((), numpy.float32), "nothing"))
    graph = helper.make_graph(
        nodes,
        "toy",
        [info("features", TensorProto.FLOAT, ["batch", WIDTH]), info("keep", TensorProto.BOOL, ["batch", 1])],
        [info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def add_gradient_norm(path):
    """Adds the norm of the accumulated gradients as the second output."""
    model = onnx.load(path)
    graph = model.graph
    squares = []
    for node in graph.node:
        if node.op_type == "InPlaceAccumulatorV2":
            accumulated = node.input[0] + ".accumulated"
            node.output.append(accumulated)
            squares.append(accumulated + ".squares")
            graph.node.append(helper.make_node("ReduceSumSquare", [accumulated], [squares[-1]], keepdims=0))
    graph.node.append(helper.make_node("Sum", squares, ["gradient_norm.squares"]))
    graph.node.append(helper.make_node("Sqrt", ["gradient_norm.squares"], ["gradient_norm"]))
    graph.output.insert(1, helper.make_tensor_value_info("gradient_norm", TensorProto.FLOAT, []))
    onnx.save(model, path)


def set_up_optimizer(path):
    """Sets AdamW's attributes and puts clipping before it."""
    model = onnx.load(path)
    model.ir_version = 8
    (adamw,) = [node for node in model.graph.node if node.op_type == "AdamWOptimizer"]
    wanted = {
        "alpha": BETAS[0],
        "beta": BETAS[1],
        "epsilon": EPSILON,
        "weight_decay": WEIGHT_DECAY,
        "adam_mode": 0,
        "correct_bias": 1,
    }
    del adamw.attribute[:]
    adamw.attribute.extend(helper.make_attribute(name, value) for name, value in wanted.items())
    position = list(adamw.input).index("gradients")
    adamw.input[position] = "clipped"
    clip = helper.make_node(
        "InplaceClipGradNorm", ["gradients"], ["clipped"], domain="com.microsoft", max_norm=CLIP
    )
    model.graph.node.insert(0, clip)
    onnx.save(model, path)


def batches():
    made = []
    for _ in range(UPDATES * ACCUMULATION):
        made.append(
            {
                "features": random.standard_normal((BATCH, WIDTH)).astype(numpy.float32),
                "keep": random.random((BATCH, 1)) < 0.8,
                "labels": random.integers(0, CLASSES, BATCH),
            }
        )
    return made


def train_with_ort(data):
    state = api.CheckpointState.load_checkpoint(str(HERE / "checkpoint"))
    module = api.Module(str(HERE / "training_model.onnx"), state, str(HERE / "eval_model.onnx"))
    optimizer = api.Optimizer(str(HERE / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(LEARNING_RATE)
    losses, norms = [], []
    for index, batch in enumerate(data):
        module.train()
        loss, norm = module(batch["features"], batch["keep"], batch["labels"])
        losses.append(float(loss))
        if index % ACCUMULATION == ACCUMULATION - 1:
            norms.append(float(norm))
            optimizer.step()
            module.lazy_reset_grad()
    module.eval()
    final = module(data[0]["features"], data[0]["keep"], data[0]["labels"])
    return losses, norms, float(final[0] if isinstance(final, (list, tuple)) else final)


def train_with_torch(values, data):
    """PyTorch's AdamW with two groups: what the engine has to reach with `undecayed` set."""
    weights = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in values.items()}
    groups = [
        {"params": [w for n, w in weights.items() if n not in UNDECAYED], "weight_decay": WEIGHT_DECAY},
        {"params": [w for n, w in weights.items() if n in UNDECAYED], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON)
    losses, norms = [], []
    for index, batch in enumerate(data):
        kept = torch.tensor(batch["features"]) * torch.tensor(batch["keep"])
        hidden = torch.relu(kept @ weights["first.weight"] + weights["first.bias"])
        logits = hidden @ weights["second.weight"] + weights["second.bias"]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(batch["labels"]))
        losses.append(loss.item())
        loss.backward()
        if index % ACCUMULATION == ACCUMULATION - 1:
            norms.append(torch.nn.utils.clip_grad_norm_(weights.values(), CLIP).item())
            optimizer.step()
            optimizer.zero_grad()
    return losses, norms, {name: weight.detach().flatten().tolist() for name, weight in weights.items()}


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    values = parameters()
    artifacts.generate_artifacts(
        forward_model(values),
        requires_grad=list(values),
        loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType.AdamW,
        artifact_directory=str(HERE),
    )
    add_gradient_norm(HERE / "training_model.onnx")
    set_up_optimizer(HERE / "optimizer_model.onnx")
    data = batches()
    ort_losses, ort_norms, ort_final = train_with_ort(data)
    torch_losses, torch_norms, torch_parameters = train_with_torch(values, data)
    expected = {
        "batch": BATCH,
        "classes": CLASSES,
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        "accumulation": ACCUMULATION,
        "undecayed": UNDECAYED,
        "parameters": [
            {"name": n, "shape": list(v.shape), "values": v.flatten().tolist()} for n, v in values.items()
        ],
        "batches": [
            {
                "features": b["features"].flatten().tolist(),
                "keep": b["keep"].flatten().tolist(),
                "labels": b["labels"].tolist(),
            }
            for b in data
        ],
        "onnxruntime": {"losses": ort_losses, "norms": ort_norms, "eval_loss_of_first_batch": ort_final},
        "torch": {"losses": torch_losses, "norms": torch_norms, "parameters": torch_parameters},
    }
    (HERE / "expected.json").write_text(json.dumps(expected) + "\n")
    for path in HERE.iterdir():
        if path.suffix not in {".onnx", ".json"} and path.name != "checkpoint":
            path.unlink()
    print(ort_losses, ort_norms, torch_losses, torch_norms, sep="\n")


main()
