"""Checks the artifacts of `mpnet compile` with ONNX Runtime's own Python tools, on one golden case.

usage: check_artifacts.py MPNET CASE
  MPNET  the `mpnet` binary
  CASE   a golden case, such as tests/data/golden/postln-gelu
needs: requirements.txt beside this file, on a Python that has wheels of onnxruntime-training-cpu 1.19.2

1. onnx.checker accepts every model, the encoder's too.
2. The Python training API loads the four artifacts and reaches the case's losses.
3. ONNX Runtime's own gradient builder, given our forward graph, finds our gradients (1e-4).
Prints a line a check; exits 1 where one fails.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module, Optimizer
from safetensors.numpy import load_file

mpnet, case = sys.argv[1], Path(sys.argv[2])
setting = json.loads((case / "case.json").read_text())
train, pad = setting["train"], setting["model"]["pad_token_id"]
weights = load_file(case / "weights.safetensors")
batches = load_file(case / "batches.safetensors")
expected = load_file(case / "expected.safetensors")
fields = ("input_ids", "positions", "targets", "attention_mask")
micro_batches = train["update_freq"]
# The parameter that carries the gradient's norm to the clipping; no model reads it.
NORM_CARRIER = "optimizer.gradient_norm"
failed = False


def check(what, difference, tolerance):
    global failed
    passed = bool(difference <= tolerance)  # false for NaN
    failed |= not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what}: {difference:.3g} (at most {tolerance:g})")


def compiled(folder, *flags):
    flags = [mpnet, "compile", "--model", case / "case.json", "--no-dropout", "--output", folder, *flags]
    for flag in ("beta1", "beta2", "adam_eps", "weight_decay", "clip_grad_norm"):
        if "encoder" not in flags:
            flags += [f"--{flag.replace('_', '-')}", str(train[flag])]
    subprocess.run([str(f) for f in flags], check=True, stdout=subprocess.DEVNULL)
    return folder


def predicted(update):
    first = update * micro_batches
    return sum(int((batches[f"{i}.targets"] != pad).sum()) for i in range(first, first + micro_batches))


def lr(update):  # update counts from 1
    warmup, total, end = train["warmup_updates"], train["total_updates"], train["end_learning_rate"]
    if update <= warmup:
        return train["lr"] * update / warmup
    done = (update - warmup) / (total - warmup) if warmup else (update - 1) / (total - 1)
    return end + (train["lr"] - end) * (1 - done) ** train["power"]


def check_models(folder):
    for model in sorted(folder.glob("*.onnx")):
        onnx.checker.check_model(onnx.load(model), full_check=model.name in ("encoder.onnx", "eval_model.onnx"))
        print(f"ok   onnx.checker accepts {model.name}")


def check_training(folder):
    """The artifacts have one weight decay for all parameters: what it takes from those that have none is
    given back, as the training-api engine does."""
    state = CheckpointState.load_checkpoint(folder / "checkpoint")
    module = Module(folder / "training_model.onnx", state, folder / "eval_model.onnx")
    for name, value in weights.items():  # not before: the Python API needs the module's session to copy
        state.parameters[name].data = value
    optimizer = Optimizer(folder / "optimizer_model.onnx", module)
    names = module.output_names()
    for update in range(train["updates"]):
        total, loss_sum = predicted(update), 0.0
        module.train()
        for i in range(update * micro_batches, (update + 1) * micro_batches):
            feeds = {f: batches[f"{i}.{f}"] for f in fields}
            feeds["loss_scale"] = np.array([1 / total], np.float32)
            outputs = module(*[feeds[name] for name in module.input_names()])
            loss_sum += float(np.ravel(dict(zip(names, outputs))["loss_sum"])[0])
        before = {n: state.parameters[n].data.copy() for n in weights if weights[n].ndim < 2}
        optimizer.set_learning_rate(lr(update + 1))
        optimizer.step()
        for name, value in before.items():
            give_back = lr(update + 1) * train["weight_decay"] * value
            state.parameters[name].data = state.parameters[name].data + give_back
        module.lazy_reset_grad()
        loss, want = loss_sum / total / np.log(2), float(expected["losses"][update])
        check(f"Python training API, loss of update {update + 1}", abs(loss - want) / abs(want), 1e-4)


def check_gradient_builder(folder):
    # Its input is a graph whose parameters are initializers and whose first output is the loss.
    forward = onnx.load(folder / "eval_model.onnx")
    inputs = [i for i in forward.graph.input if i.name not in weights and i.name != NORM_CARRIER]
    del forward.graph.input[:]
    forward.graph.input.extend(inputs)
    forward.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in weights.items())
    # A zero is not written by the emitter's protobuf (proto3), but the builder wants to see it.
    for attribute in (a for node in forward.graph.node for a in node.attribute):
        if attribute.type == onnx.AttributeProto.INT:
            attribute.i = attribute.i
    expand_fused_products(forward.graph, folder)
    loss = next(o for o in forward.graph.output if o.name == "loss_sum")
    others = [o for o in forward.graph.output if o.name != "loss_sum"]
    del forward.graph.output[:]
    forward.graph.output.extend([loss, *others])
    with tempfile.TemporaryDirectory() as built:
        artifacts.generate_artifacts(forward, requires_grad=list(weights), artifact_directory=built)
        model = onnx.load(f"{built}/training_model.onnx")
    del model.graph.value_info[:]  # what the builder thinks of symbolic shapes, partly wrong
    for name, value in weights.items():
        model.graph.output.append(helper.make_tensor_value_info(f"{name}_grad", TensorProto.FLOAT, value.shape))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    outputs = [f"{n}_grad" for n in weights]
    # Ours, of the first update: summed over its micro-batches, divided by its predicted tokens.
    total = {n: np.zeros_like(v) for n, v in weights.items()}
    for i in range(micro_batches):
        feeds = {f: batches[f"{i}.{f}"] for f in fields} | dict(weights)
        feeds |= {f"{n}_grad.accumulation.buffer": np.zeros_like(v) for n, v in weights.items()}
        feeds["lazy_reset_grad"] = np.array([True])
        found = session.run(outputs, {n: v for n, v in feeds.items() if n in wanted})
        for name, gradient in zip(weights, found):
            total[name] += gradient / predicted(0)
    ours = our_gradients()
    worst = max(
        (float(np.linalg.norm(ours[n] - total[n]) / np.linalg.norm(total[n])), n) for n in weights
    )
    check(f"ONNX Runtime's gradient builder against ours, worst of {len(weights)} ({worst[1]})", worst[0], 1e-4)


def expand_fused_products(graph, folder):
    """com.microsoft's FusedMatMul, for which the builder knows no gradient, in standard operators."""
    rank_of = ranks(folder, {name for n in graph.node if n.op_type == "FusedMatMul" for name in n.input})
    nodes = []
    for node in graph.node:
        if node.op_type != "FusedMatMul":
            nodes.append(node)
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        factors = []
        for side, name in zip("AB", node.input):
            order = list(range(rank_of[name]))
            if attributes.get(f"transBatch{side}"):
                order = [*order[1:-1], 0, order[-1]]
            if attributes.get(f"trans{side}"):
                order[-2:] = order[:-3:-1]
            if order != sorted(order):
                turned = f"{node.output[0]}.{side}"
                nodes.append(helper.make_node("Transpose", [name], [turned], perm=order))
                name = turned
            factors.append(name)
        product = f"{node.output[0]}.product"
        alpha = numpy_helper.from_array(np.float32(attributes.get("alpha", 1.0)), f"{product}.alpha")
        graph.initializer.append(alpha)
        nodes.append(helper.make_node("MatMul", factors, [product]))
        nodes.append(helper.make_node("Mul", [product, alpha.name], node.output))
    del graph.node[:]
    graph.node.extend(nodes)


def ranks(folder, names):
    """How many dimensions the named values have, seen by running the first micro-batch."""
    probe = onnx.load(folder / "eval_model.onnx")
    outputs = sorted(names - set(weights))
    probe.graph.output.extend(onnx.ValueInfoProto(name=n) for n in outputs)
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    carrier = {NORM_CARRIER: np.zeros(1, np.float32)}
    found = session.run(outputs, {f: batches[f"0.{f}"] for f in fields} | weights | carrier)
    return {n: v.ndim for n, v in [*zip(outputs, found), *weights.items()]}


def our_gradients():
    with tempfile.TemporaryDirectory() as folder:
        model = compiled(Path(folder), "--expose") / "training_model.onnx"
        session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    carrier = {n: np.zeros(1, np.float32) for n in (NORM_CARRIER, f"{NORM_CARRIER}_grad.accumulation.buffer")}
    buffers = {f"{n}_grad.accumulation.buffer": np.zeros_like(v) for n, v in weights.items()}
    for i in range(micro_batches):
        feeds = {f: batches[f"{i}.{f}"] for f in fields} | weights | buffers | carrier
        feeds["loss_scale"] = np.array([1 / predicted(0)], np.float32)
        feeds["lazy_reset_grad"] = np.array([i == 0])
        found = dict(zip(names, session.run(names, feeds)))
        buffers = {f"{n}_grad.accumulation.buffer": found[f"grad.{n}"] for n in weights}
    return {n: found[f"grad.{n}"] for n in weights}


with tempfile.TemporaryDirectory() as root:
    training = compiled(Path(root) / "training")
    encoder = compiled(Path(root) / "encoder", "--target", "encoder")
    check_models(training)
    check_models(encoder)
    check_training(training)
    check_gradient_builder(training)
sys.exit(failed)
