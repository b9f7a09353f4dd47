"""Checks the CUDA kernels between the matrix products, and of the optimizer, against PyTorch in float64, and
times them at MPNet-base's sizes, 64 rows of 512 tokens.

usage: check_elementwise.py
needs: a GPU of compute capability 8.0 or newer, PyTorch with CUDA (its NVRTC compiles the kernels)

Relative in L2: 2e-6 in f32, 3e-3 in bf16 and fp16, of which rounding a result makes up to 1.7e-3; what is computed
again from rounded numbers is rounded twice.
Sums over rows, which are f32 in every type, 3e-3 too. Beside each time is the memory that the kernel moves, in
GB/s. Exits 1 where a check fails.
"""
import ctypes
import sys

import torch

from cuda_kernels import kernel, launch, milliseconds, off

ELEMENTS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
noise = torch.Generator(device="cuda").manual_seed(0)
failed = False
ratio = 0.1
limit, keep = ctypes.c_uint(round(ratio * 2**32)), ctypes.c_float(1 / (1 - ratio))
i64 = ctypes.c_longlong


def floats(*shape, dtype=torch.float32):
    return torch.randn(*shape, device="cuda", generator=noise).to(dtype)


def odd(count):
    return torch.randint(0, 2**31, (count,), device="cuda", generator=noise) * 2 + 1


def empty(*shape, dtype=torch.float32):
    return torch.full(shape, float("nan"), device="cuda", dtype=dtype)


class Dropout:
    def __init__(self, rows, width):
        of_rows, of_columns = odd(rows), odd(width)
        self.kept = (of_rows[:, None] * of_columns) % 2**32 >= limit.value
        self.factors = of_rows.to(torch.uint32), of_columns.to(torch.uint32)

    def __call__(self, x):
        return torch.where(self.kept, x / (1 - ratio), 0.0)


def report(title, dtype, start, moved, **pairs):
    """Checks the pairs of found and expected, and times `start`, which moves `moved` bytes."""
    global failed
    start()
    torch.cuda.synchronize()
    line = []
    for name, (found, expected) in pairs.items():
        difference = off(found, expected)
        good = difference < (2e-6 if dtype == torch.float32 else 3e-3)
        failed |= not good
        line.append(f"{name} {difference:.1e}{'' if good else ' FAILED'}")
    ms = milliseconds(start)
    print(title, str(dtype).removeprefix("torch."), *line, f"| {ms} ms, {moved / ms / 1e6:.0f} GB/s", flush=True)


def sum_parts(files, outputs, parts, count, width, **definitions):
    a, b, c = (*outputs, None, None)[:3]
    columns = width * len(outputs)
    launch(kernel(files, "sum_parts", **definitions), (-(-columns // 32), 1, 1), 256, 0, a, b, c, parts, count, columns, width)


def piece(dtype, width):
    most = 4 if dtype == torch.float32 else 8
    return next(n for n in (8, 4, 2, 1) if n <= most and width % n == 0)


def dropout_and_gelu(dtype, rows, width):
    files, made = ("common.cuh", "elementwise.cu"), dict(ELEMENT=ELEMENTS[dtype])
    x, dy, y = floats(rows, width, dtype=dtype), floats(rows, width, dtype=dtype), empty(rows, width, dtype=dtype)
    blocks = min(-(-x.numel() // (256 * (8 if ELEMENTS[dtype] else 4))), 2048)
    drop = Dropout(rows, width)
    start = lambda: launch(kernel(files, "factor_dropout", **made), (blocks, 1, 1), 256, 0, y, x, *drop.factors, i64(x.numel()), width, limit, keep)
    report(f"dropout {rows} x {width}", dtype, start, 2 * x.nbytes, y=(y, drop(x.double())))
    for approximate in (0, 1):
        wide = x.double().requires_grad_()
        torch.nn.functional.gelu(wide, approximate="tanh" if approximate else "none").backward(dy.double())
        start = lambda: launch(kernel(files, "gelu_grad", **made), (blocks, 1, 1), 256, 0, y, dy, x, i64(x.numel()), approximate)
        report(f"gelu_grad {rows} x {width}", dtype, start, 3 * x.nbytes, dx=(y, wide.grad))


def layer_norm(rows, width):
    files, made = ("common.cuh", "elementwise.cu"), dict(ELEMENT=0, WIDTH=width)
    x, dy, scale = floats(rows, width), floats(rows, width), floats(width)
    wide, wide_scale = x.double().requires_grad_(), scale.double().requires_grad_()
    bias = torch.zeros_like(wide_scale).requires_grad_()
    torch.nn.functional.layer_norm(wide, (width,), wide_scale, bias).backward(dy.double())
    mean, inverse = x.mean(1), (x.var(1, unbiased=False) + 1e-5).rsqrt()
    dx, d_scale, d_bias = empty(rows, width), empty(width), empty(width)
    blocks = min(-(-rows // 8), 396)
    parts = empty(blocks * 2 * width)

    def start():
        launch(kernel(files, "layer_norm_grad", **made), (blocks, 1, 1), 256, 0, dx, parts, dy, x, scale, mean, inverse, i64(rows))
        sum_parts(files, (d_scale, d_bias), parts, blocks, width, **made)

    pairs = dict(dx=(dx, wide.grad), scale=(d_scale, wide_scale.grad), bias=(d_bias, bias.grad))
    report(f"layer_norm_grad {rows} x {width}", torch.float32, start, 3 * x.nbytes, **pairs)


def residual_norm(dtype, rows, width, dropping=True, both=True):
    files, made = ("common.cuh", "residual_norm.cu"), dict(ELEMENT=ELEMENTS[dtype], WIDTH=width)
    residual, branch = floats(rows, width), floats(rows, width, dtype=dtype)
    bias, scale, shift = floats(width), floats(width), floats(width)
    drop = Dropout(rows, width) if dropping else lambda x: x
    factors = drop.factors if dropping else (None, None)
    own_limit = limit if dropping else ctypes.c_uint(0)
    normal, copy, total = empty(rows, width), empty(rows, width, dtype=dtype), empty(rows, width, dtype=dtype)
    mean, inverse = empty(rows), empty(rows)
    start = lambda: launch(
        kernel(files, "residual_norm", **made), (min(-(-rows // 4), 8192), 1, 1), 128, 0,
        normal, copy, total, mean, inverse, residual, branch, bias, scale, shift, *factors, i64(rows), own_limit, keep, ctypes.c_float(1e-5),
    )
    wide = [t.double().requires_grad_() for t in (residual, branch, bias, scale, shift)]
    x = wide[0] + drop(wide[1] + wide[2])
    y = torch.nn.functional.layer_norm(x, (width,), wide[3], wide[4])
    pairs = dict(normal=(normal, y.detach()), copy=(copy, y.detach()), sum=(total, x.detach()), mean=(mean, x.mean(1).detach()))
    title = f"residual_norm {rows} x {width}{'' if dropping else ' no dropout'}"
    report(title, dtype, start, 2 * residual.nbytes + 3 * branch.nbytes, **pairs)
    again = empty(rows, width, dtype=dtype)
    blocks = min(-(-rows // 4), 8192)
    start = lambda: launch(kernel(files, "normalized_again", **made), (blocks, 1, 1), 128, 0, again, total, mean, inverse, scale, shift, i64(rows))
    report(f"{title} again", dtype, start, 2 * branch.nbytes, copy=(again, y.detach()))

    d_normal, d_copy = floats(rows, width) if both else None, floats(rows, width, dtype=dtype)
    y.backward(d_copy.double() + (d_normal.double() if both else 0))
    blocks = min(-(-rows // 4), 264)
    d_residual, d_branch, parts = empty(rows, width), empty(rows, width, dtype=dtype), empty(blocks * 3 * width)
    vectors = empty(width), empty(width), empty(width)

    def start():
        launch(
            kernel(files, "residual_norm_grad", **made), (blocks, 1, 1), 128, 0,
            d_residual, d_branch, parts, d_normal, d_copy, total, scale, mean, inverse, *factors, i64(rows), own_limit, keep,
        )
        sum_parts(files, vectors, parts, blocks, width, **made)

    names = ("residual", "branch", "bias", "scale", "shift")
    found = d_residual, d_branch, *vectors
    pairs = {n: (f, w.grad) for n, f, w in zip(names, found, wide)}
    report(f"{title} backward", dtype, start, (1 + both) * residual.nbytes + 3 * branch.nbytes, **pairs)


def sum_rows(dtype, rows, width):
    files, made = ("common.cuh", "sum_rows.cu"), dict(ELEMENT=ELEMENTS[dtype], PIECE=piece(dtype, width))
    x, y = floats(rows, width, dtype=dtype), empty(width, dtype=dtype)
    across = -(-width // (made["PIECE"] * 96))
    down = max(min(-(-rows // 8), -(-1584 // across)), 1)
    parts = empty(down * width)

    def start():
        launch(kernel(files, "sum_rows", **made), (across, down, 1), 96, 0, parts, x, rows, width)
        launch(kernel(files, "sum_of_blocks", **made), (-(-width // 32), 1, 1), 256, 0, y, parts, down, width)

    report(f"sum_rows {rows} x {width}", dtype, start, x.nbytes, y=(y, x.double().sum(0)))


def scatter_add(count, height, width):
    files, made = ("common.cuh", "scatter_add.cu"), dict(ELEMENT=0)
    table, rows = floats(height, width), floats(count, width)
    # Some rows of the table meet most of the indices, as words do.
    indices = (torch.rand(count, device="cuda", generator=noise) ** 8 * height).long()
    result, most_chunks = empty(height, width), -(-count // 64) * 2
    integers = lambda n: torch.zeros(n, device="cuda", dtype=torch.int32)
    counts, begins, chunks = integers(height), integers(height + 1), integers(height + 1)
    listed, ordered, sums = integers(count), integers(count), empty(most_chunks * width)
    each = (-(-count // 256), 1, 1)

    def start():
        counts.zero_()
        launch(kernel(files, "count_indices", **made), each, 256, 0, counts, indices, count, height)
        launch(kernel(files, "begin_lists", **made), (1, 1, 1), 1024, 0, begins, chunks, counts, height)
        launch(kernel(files, "list_indices", **made), each, 256, 0, listed, counts, begins, indices, count, height)
        launch(kernel(files, "order_lists", **made), each, 256, 0, ordered, listed, begins, indices, height)
        launch(kernel(files, "sum_chunks", **made), (most_chunks, 1, 1), 256, 0, sums, ordered, begins, chunks, rows, height, width)
        launch(kernel(files, "add_lists", **made), (height, 1, 1), 256, 0, result, table, sums, ordered, begins, chunks, rows, width)

    expected = table.double().index_add(0, indices, rows.double())
    report(f"scatter_add {count} into {height} x {width}", torch.float32, start, 2 * table.nbytes + rows.nbytes, table=(result, expected))
    first = result.clone()
    start()
    global failed
    if not torch.equal(first, result):
        failed = True
        print("scatter_add: the same bits twice: FAILED")


def bias_gelu(dtype, rows, width, approximate, dropping=True):
    files, made = ("common.cuh", "bias_gelu.cu"), dict(ELEMENT=ELEMENTS[dtype], PIECE=piece(dtype, width))
    x, bias, dy = floats(rows, width, dtype=dtype), floats(width), floats(rows, width, dtype=dtype)
    x *= 2
    drop = Dropout(rows, width) if dropping else lambda x: x
    factors = drop.factors if dropping else (None, None)
    own_limit = limit if dropping else ctypes.c_uint(0)
    across = -(-width // (made["PIECE"] * 128))
    down = min(-(-rows // 2), -(-3168 // across))
    y, again, dx = (empty(rows, width, dtype=dtype) for _ in range(3))
    parts, d_bias = empty(down * width), empty(width)
    settings = *factors, rows, width, own_limit, keep, approximate
    start = lambda: launch(kernel(files, "bias_gelu", **made), (across, down, 1), 128, 0, y, x, bias, *settings)
    wide, wide_bias = x.double().requires_grad_(), bias.double().requires_grad_()
    expected = drop(torch.nn.functional.gelu(wide + wide_bias, approximate="tanh" if approximate else "none"))
    title = f"bias_gelu {rows} x {width} {'tanh' if approximate else 'erf'}"
    report(title, dtype, start, 2 * x.nbytes, y=(y, expected.detach()))
    expected.backward(dy.double())

    def start():
        launch(kernel(files, "bias_gelu_grad", **made), (across, down, 1), 128, 0, dx, again, parts, dy, x, bias, *settings)
        sum_parts(files, (d_bias,), parts, down, width, **made)

    pairs = dict(dx=(dx, wide.grad), bias=(d_bias, wide_bias.grad), y=(again, expected.detach()))
    report(f"{title} backward", dtype, start, 4 * x.nbytes, **pairs)


def cross_entropy(dtype, rows, classes):
    files, made = ("common.cuh", "cross_entropy.cu"), dict(ELEMENT=ELEMENTS[dtype], PIECE=piece(dtype, classes))
    x, bias = floats(rows, classes, dtype=dtype), floats(classes)
    targets = torch.randint(0, classes, (rows,), device="cuda", generator=noise)
    targets[::5] = 1
    best, sums, losses, loss = torch.empty_like(targets), empty(rows), empty(rows), empty(1)

    def start():
        launch(kernel(files, "cross_entropy", **made), (rows, 1, 1), 256, 0, best, sums, losses, x, bias, targets, classes, i64(1))
        launch(kernel(files, "sum_losses", **made), (1, 1, 1), 256, 0, loss, losses, rows)

    wide, wide_bias = x.double().requires_grad_(), bias.double().requires_grad_()
    logits = wide + wide_bias
    expected = torch.nn.functional.cross_entropy(logits, targets, ignore_index=1, reduction="sum")
    # In f32, as the kernel adds them.
    of_best = (x.float() + bias).gather(1, best.clamp(0, classes - 1)[:, None])
    pairs = dict(loss=(loss, expected.detach().reshape(1)), sums=(sums, logits.logsumexp(1).detach()))
    report(f"cross_entropy {rows} x {classes}", dtype, start, x.nbytes, **pairs)
    global failed
    first = (x.float() + bias).max(1)
    if not torch.equal(best, first.indices) and not torch.equal((x.float() + bias).gather(1, best[:, None])[:, 0], first.values):
        failed = True
        print("cross_entropy: the best classes are others: FAILED")
    d_loss = torch.tensor([0.37], device="cuda")
    (expected * 0.37).backward()
    across = -(-classes // (made["PIECE"] * 256))
    down = min(rows, -(-1584 // across))
    dx, parts, d_bias = empty(rows, classes, dtype=dtype), empty(down * classes), empty(classes)

    def start():
        launch(kernel(files, "cross_entropy_grad", **made), (across, down, 1), 256, 0, dx, parts, d_loss, x, bias, targets, sums, rows, classes, i64(1))
        sum_parts(files, (d_bias,), parts, down, classes, **made)

    report(f"cross_entropy backward {rows} x {classes}", dtype, start, 2 * x.nbytes, dx=(dx, wide.grad), bias=(d_bias, wide_bias.grad))


def adamw(count):
    files = "common.cuh", "adamw.cu"
    p, g, m, v = floats(count), floats(count), floats(count), floats(count).square()
    numbers = [torch.tensor([x], device="cuda") for x in (3.0, 0.5, 1e-3, 0.999, 1.7)]
    new = empty(count), empty(count), empty(count)
    settings = i64(count), *(ctypes.c_float(x) for x in (0.9, 0.98, 1e-6))
    blocks = min(-(-count // 1024), 4096)
    start = lambda: launch(kernel(files, "adamw", ELEMENT=0), (blocks, 1, 1), 256, 0, *new, p, g, m, v, *numbers, *settings)
    d = g.double() * 0.5
    first, second = 0.9 * m.double() + 0.1 * d, 0.98 * v.double() + 0.02 * d * d
    expected = p.double() * 0.999 - first / (second.sqrt() * 1.7 + 1e-6) * 1e-3
    report(f"adamw {count}", torch.float32, start, 7 * p.nbytes, p=(new[0], expected), m=(new[1], first), v=(new[2], second))
    numbers[0].fill_(float("inf"))
    report("adamw that overflowed", torch.float32, start, 7 * p.nbytes, p=(new[0], p.double()), m=(new[1], m.double()))


for dtype in ELEMENTS:
    for rows, width in ((37, 768), (29, 50), (42624, 768)):
        dropout_and_gelu(dtype, rows, width)
    for rows, width in ((37, 768), (3, 36), (29, 50), (11, 33), (9, 1024), (7, 4096), (42624, 768)):
        residual_norm(dtype, rows, width)
    residual_norm(dtype, 37, 768, dropping=False, both=False)
    for rows, width in ((37, 3072), (29, 50), (11, 33), (42624, 3072)):
        bias_gelu(dtype, rows, width, rows % 2)
    bias_gelu(dtype, 42624, 3072, 1)
    bias_gelu(dtype, 37, 48, 0, dropping=False)
    for rows, classes in ((11, 512), (7, 37), (4928, 30592)):
        cross_entropy(dtype, rows, classes)
    for rows, width in ((37, 768), (29, 50), (1, 33), (42624, 2304)):
        sum_rows(dtype, rows, width)
for width in (50, 768, 1024):
    for rows in (5, 42624):
        layer_norm(rows, width)
for count, height, width in ((5, 7, 3), (1023, 32, 12), (42624, 514, 768), (42624, 30592, 768)):
    scatter_add(count, height, width)
adamw(1003)
adamw(110_000_000)
sys.exit(failed)
