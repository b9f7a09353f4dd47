"""Checks the CUDA kernels of two-stream attention against its definition in float64, and times them.

usage: check_attention.py [CASES] [--small]
  CASES    random sizes to try; 150 where not given
  --small  sizes for a slow tool, compute-sanitizer's racecheck; nothing is timed
needs: a GPU of compute capability 8.0 or newer, PyTorch with CUDA (its NVRTC compiles the kernels)

The context, the log-sum-exp and every gradient, relative in L2: 3e-3 in bf16, of which rounding the result to
bf16 alone makes 1.7e-3 and rounding the weights most of the rest (flash attention differs by 2.2e-3 to 2.4e-3 on the
same inputs), 1e-3 in fp16, 1e-5 in fp32. On compute capability 9.0 as many cases again are for the kernels
that this capability alone has. Then one layer of MPNet-base, 64 rows of 512 tokens, in bf16
and in fp32: that two runs give the same bits, and the milliseconds of every kernel. Exits 1 where a check fails.
"""
import ctypes
import random
import sys

import torch

from cuda_kernels import kernel, launch, milliseconds, off

ELEMENTS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-3, torch.float16: 1e-3}


class Sizes(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_int) for n in ("batch", "heads", "length", "predicted", "rows", "positions")),
        ("text_stride", ctypes.c_int),
        ("scale", ctypes.c_float),
        ("keep_probability", ctypes.c_float),
        ("drop_limit", ctypes.c_uint),
    ]


def kernels_of(width, dtype, dropout, tile, hopper, **further):
    """The kernels compiled for heads of that width."""
    made = dict(ELEMENT=ELEMENTS[dtype], HEAD_DIM=width, DROPOUT=int(dropout), TILE=tile, **further)
    names = ["prepare", "forward", "row_records", "backward_query", "sum_parts", "clear_behind_keys", "backward_key_value"]
    if hopper:
        sources = ["halves.cuh", "hopper.cu"]
        names = ["arrange", "forward", "row_info", "backward_query", "sum_parts", "clear_behind_keys", "backward_key_value"]
    else:
        sources = ["f32.cu"] if dtype == torch.float32 else ["halves.cuh", "tensor_cores.cu"]
    files = ["common.cuh", "attention/two_stream.cuh", *(f"attention/{s}" for s in sources)]
    return {name: kernel(files, name, **made) for name in names}


class Case:
    """Random inputs of an attention, and the kernels' launches over them."""

    def __init__(self, b, h, d, length, predicted, dtype, queries=False, packed=False, padding=0.0, dropout=0.0, room=0, tile=64, hopper=False, scattered=False, loud=1, seed=0, **made):
        random_ = torch.Generator(device="cuda").manual_seed(seed)
        keys = length + predicted
        rows = predicted if queries else keys + predicted
        self.sizes = b, h, d, length, predicted, rows, length + room
        self.dropout, positions = dropout, length + room

        def floats(n):
            return torch.randn(n, b, h, d, device="cuda", generator=random_).to(dtype)

        def odd(*shape):
            return torch.randint(0, 2**31, shape, device="cuda", generator=random_) * 2 + 1

        self.q, self.k, self.v, self.gradient = floats(rows), floats(keys), floats(keys), floats(rows)
        self.packed, self.loud = packed, loud
        if packed:
            self.q, self.k, self.v = self.thirds(torch.randn(rows, b, 3, h, d, device="cuda", generator=random_).to(dtype))
        self.q *= loud
        if scattered:
            order = torch.randint(0, positions, (b, length), device="cuda", generator=random_)
        else:
            order = torch.stack([torch.randperm(length, device="cuda", generator=random_) for _ in range(b)])
        copies = [order[:, length - predicted :]] * 2
        self.positions = torch.cat([order, *copies], 1).contiguous()
        keep = torch.rand(b, keys, device="cuda", generator=random_) >= padding
        keep[:, 0] = keep[:, -1] = True
        self.keep = keep.to(torch.uint8)
        self.bias = torch.randn(h, 2 * positions - 1, device="cuda", generator=random_)
        self.factors = odd(b, h), odd(rows), odd(keys)
        self.limit = round(dropout * 2**32)
        stride = h * d * (3 if packed else 1)
        self.z = Sizes(b, h, length, predicted, rows, positions, stride, d**-0.5, 1 - dropout, self.limit)
        self.kernels = kernels_of(d, dtype, dropout > 0, tile, hopper, **made)
        self.tile, self.hopper = tile, hopper
        tiles = lambda n: -(-n // tile)
        plain, mixed = 0 if queries else tiles(length), tiles(predicted if queries and not hopper else 2 * predicted)
        self.row_tiles = plain + mixed
        if hopper:
            self.key_tiles = tiles(length) + tiles(predicted)
        else:
            self.key_tiles = 2 * tiles(length) - (length - predicted) // tile if predicted else tiles(length)

        def room_for(*shape, of=torch.float32):
            return torch.full(shape, float("nan"), device="cuda").to(of)

        def like(x):
            return torch.full_like(x, float("nan"))

        self.table = room_for(h * -(-3 * positions // 4) * 4)
        self.key_records, self.row_records = room_for(b * keys * 2), room_for(b * h * rows * 4)
        self.largest, self.parts = room_for(b * h), room_for(b * self.row_tiles * self.bias.numel())
        # Of the kernels of 9.0: the members of tiles, the keys' and rows' info, runs of positions.
        own, keys_in_lists = tiles(length), self.key_tiles + tiles(length)
        self.lists = room_for(b, keys_in_lists + mixed, 64), room_for(b, keys_in_lists, 196), room_for(b, own)
        self.row_info, self.norms = room_for(b, h, self.row_tiles, 324), room_for(b, h, 2)
        self.found = dict(context=like(self.gradient), lse=room_for(b, h, rows), bias=like(self.bias))
        if packed:
            self.d_packed = torch.full((rows, b, 3, h, d), float("nan"), device="cuda", dtype=dtype)
            gradients = self.thirds(self.d_packed)
        else:
            gradients = like(self.q), like(self.k), like(self.v)
        self.found |= dict(zip(("query", "key", "value"), gradients))

    def thirds(self, packed):
        """Queries, keys and values in one tensor [rows, b, 3, h, d]."""
        keys = self.sizes[3] + self.sizes[4]
        return packed[:, :, 0], packed[:keys, :, 1], packed[:keys, :, 2]

    def shared_memory(self):
        """Bytes that the kernels keep beside the table of the bias."""
        (_, h, d, *_), tile = self.sizes, self.tile
        table = self.table.numel() // h * 4
        if self.q.dtype == torch.float32:
            rows, weights = tile * (d * 4 + 16), tile * (tile + 4) * 4
            return dict(forward=3 * rows + weights + tile * 8, backward_query=4 * rows + weights + tile * 8 + 2 * table, backward_key_value=4 * rows + weights + tile * 16)
        if self.hopper:
            rows = tile * d * 2
            return dict(forward=5 * rows + 1568, backward_query=6 * rows + 1568 + table, backward_key_value=6 * rows + 2592)
        rows = tile * (d * 2 + 16)
        return dict(forward=5 * rows + 1024, backward_query=6 * rows + 1024 + table, backward_key_value=6 * rows + 2048)

    def launches(self):
        b, h, d, length, predicted, rows, positions = self.sizes
        found, z, kernels = self.found, self.z, self.kernels
        of_heads, of_rows, of_keys = (f.to(torch.uint32) for f in self.factors)
        table, shared = self.table.numel() // h * 4, self.shared_memory()
        count = b * (length + predicted) + self.table.numel()
        grid = lambda tiles: (tiles, h, b)
        start = lambda name, blocks, threads, memory, *arguments: (name, lambda: launch(kernels[name], blocks, threads, memory, *arguments, z))
        multiply = lambda name, tiles, *arguments: start(name, grid(tiles), 128, shared[name] + table, *arguments)
        operands = self.gradient, self.q, self.k, self.v
        if self.hopper:
            members, keys, runs = self.lists
            tables = keys, self.table, members, runs
            rows_and_keys = self.row_info, keys
            memory = 8 * -(-length // 64) * 64 + 4 * predicted
            before = start("arrange", (b + h, 1, 1), 512, memory, members, keys, runs, self.norms, self.table, self.positions, self.keep, of_keys, self.bias)
            forward = multiply("forward", self.row_tiles, found["context"], found["lse"], self.q, self.k, self.v, self.positions, *tables, of_heads, of_rows)
            between = start("row_info", grid(max(self.row_tiles, self.key_tiles)), 256, 0, self.row_info, self.norms, found["context"], self.gradient, found["lse"], self.v, self.positions, members, runs, of_heads, of_rows)
            query = multiply("backward_query", self.row_tiles, found["query"], self.parts, *operands, *rows_and_keys, self.norms, self.table, members)
            key_value = multiply("backward_key_value", self.key_tiles, found["key"], found["value"], *operands, *rows_and_keys, self.table, members)
        else:
            rows_and_keys = self.row_records, self.key_records
            before = start("prepare", (-(-count // 128), 1, 1), 128, 0, self.key_records, self.table, self.positions, self.keep, of_keys, self.bias)
            forward = multiply("forward", self.row_tiles, found["context"], found["lse"], self.q, self.k, self.v, self.positions, self.key_records, self.table, of_heads, of_rows)
            between = start("row_records", (h, b, 1), 256, 0, self.row_records, self.largest, found["context"], self.gradient, found["lse"], self.v, self.positions, of_heads, of_rows)
            query = multiply("backward_query", self.row_tiles, found["query"], self.parts, *operands, *rows_and_keys, self.largest, self.table)
            key_value = multiply("backward_key_value", self.key_tiles, found["key"], found["value"], *operands, *rows_and_keys, self.table)
        columns = self.bias.numel()
        add = "sum_parts", lambda: launch(kernels["sum_parts"], (-(-columns // 32), 1, 1), 256, 0, found["bias"], None, None, self.parts, b * self.row_tiles, columns, columns)
        clear = [start("clear_behind_keys", (predicted, b, 1), 128, 0, self.d_packed)] if self.packed and predicted else []
        return dict([before, forward, between, query, add, *clear, key_value])

    def run(self):
        for start in self.launches().values():
            start()
        torch.cuda.synchronize()
        return self.found

    def expected(self):
        """The definition: a table of who sees whom, everything in memory, PyTorch's derivatives."""
        b, h, d, length, predicted, rows, positions = self.sizes
        left, keys = length - predicted, length + predicted
        heads = lambda x: x.double().permute(1, 2, 0, 3).detach().requires_grad_()
        q, k, v, bias = heads(self.q), heads(self.k), heads(self.v), self.bias.double().requires_grad_()
        i = torch.arange(keys + predicted, device="cuda")[:, None]
        j = torch.arange(keys, device="cuda")[None]
        token, mask = (j >= left) & (j < length), j >= length
        of_token = (token & (j <= i)) | (mask & (j - length > i - left))
        of_query = (token & (j - left < i - keys)) | (mask & (j - length >= i - keys))
        seen = (j < left) | torch.where((i >= left) & (i < length), of_token, torch.where(i >= keys, of_query, mask))
        first = keys + predicted - rows
        distance = self.positions[:, None, :keys] - self.positions[:, first:, None] + positions - 1
        scores = q @ k.transpose(-1, -2) * d**-0.5 + bias[:, distance].permute(1, 0, 2, 3)
        scores = scores.masked_fill(~(seen[first:] & self.keep.bool()[:, None, None]), float("-inf"))
        weights = scores.softmax(-1)
        if self.dropout:
            of_heads, of_rows, of_keys = self.factors
            hashed = ((of_heads[:, :, None, None] * of_rows[:, None]) % 2**32 * of_keys) % 2**32
            weights = torch.where(hashed >= self.limit, weights, 0.0) / (1 - self.dropout)
        context = weights @ v
        context.backward(self.gradient.double().permute(1, 2, 0, 3))
        rows_first = lambda x: x.detach().permute(2, 0, 1, 3)
        return dict(context=rows_first(context), lse=scores.logsumexp(-1).detach(), query=rows_first(q.grad), key=rows_first(k.grad), value=rows_first(v.grad), bias=bias.grad)


def choose_case(choose, small):
    # From 7 tokens on: where a row sees one or two keys, gradients are differences of nearly equal numbers.
    length = choose.choice([7, 33, 65, 100] if small else [7, 33, 64, 65, 100, 127, 128, 200, 333, 512])
    predicted = choose.choice([0, 1, length // 7, length // 2, length])
    dtype = choose.choice(list(ELEMENTS))
    width = choose.choice([32, 64, 96, 128] + [4, 8, 20, 48] * (dtype == torch.float32))
    sizes = choose.choice([1] if small else [1, 2, 3]), choose.choice([1, 2] if small else [1, 2, 5]), width, length, predicted
    further = dict(queries=predicted > 0 and choose.random() < 0.3, padding=choose.choice([0, 0, 0.3]))
    further |= dict(dropout=choose.choice([0, 0.1, 0.5]), room=choose.choice([0, 1, 40]))
    further |= dict(packed=not further["queries"] and choose.random() < 0.5, scattered=choose.random() < 0.2, loud=choose.choice([1, 1, 1, 16]))
    further |= dict(tile=choose.choice([32, 64]) if dtype == torch.float32 else 64)
    return sizes, dtype, further


def choose_hopper_case(choose, small):
    """One that the kernels of compute capability 9.0 are for."""
    (b, h, *_), dtype, further = choose_case(choose, small)
    while dtype == torch.float32 or further["queries"]:
        (b, h, *_), dtype, further = choose_case(choose, small)
    length = choose.choice([128, 140] if small else [128, 200, 333, 512])
    predicted = choose.choice([0, 1, length // 7, length // 2, length])
    further |= dict(queries=predicted > 0 and not further["packed"] and choose.random() < 0.5)
    return (b, h, 64, length, predicted), dtype, further | dict(hopper=True)


def check(cases, worst):
    """Compares the kernels' results with the definition's; how many differ."""
    failed = 0
    for seed, (sizes, dtype, further) in enumerate(cases):
        length, predicted = sizes[3:]
        case = Case(*sizes, dtype, **further, seed=seed)
        found = case.run()
        if case.packed and case.d_packed[length + predicted :, :, 1:].any():
            failed += 1
            print("failed:", sizes, dtype, further, "gradients behind the keys are not 0")
        expected = case.expected()
        if case.loud > 1:
            # One key takes nearly all weight: gradients of scores are differences of nearly equal numbers.
            expected = {name: expected[name] for name in ("context", "lse")}
        for name, expected in expected.items():
            difference = off(found[name], expected)
            key = name, "hopper" if case.hopper else "", str(dtype).removeprefix("torch.")
            worst[key] = max(worst.get(key, 0), difference)
            if not difference < TOLERANCES[dtype]:
                failed += 1
                print("failed:", sizes, dtype, further, name, difference)
    return failed


def measure(dtype, **further):
    """One layer of MPNet-base: whether two runs give the same bits; prints the times."""
    torch.cuda.reset_peak_memory_stats()
    case = Case(64, 12, 64, 512, 77, dtype, packed=True, dropout=0.1, **further)
    first = {name: x.clone() for name, x in case.run().items()}
    second = case.run()
    same = all(torch.equal(first[name], second[name]) for name in first)
    print(dtype, further, "the same bits twice:", same)
    times = {name: milliseconds(start) for name, start in case.launches().items()}
    print("milliseconds:", times, "sum", round(sum(times.values()), 3))
    print("GiB with all inputs and results:", round(torch.cuda.max_memory_allocated() / 2**30, 2))
    return same


def main():
    small = "--small" in sys.argv
    numbers = [int(a) for a in sys.argv[1:] if a.isdecimal()]
    count, choose, worst = numbers[0] if numbers else 150, random.Random(2), {}
    hopper = torch.cuda.get_device_capability() == (9, 0)
    failed = check((choose_case(choose, small) for _ in range(count)), worst)
    if hopper:
        failed += check((choose_hopper_case(choose, small) for _ in range(count)), worst)
    print("largest differences:", {" ".join(filter(None, k)): f"{v:.1e}" for k, v in sorted(worst.items())})
    if not small:
        kinds = [(torch.bfloat16, {}), (torch.float32, {})] + [(torch.bfloat16, dict(hopper=True))] * hopper
        failed += sum(not measure(dtype, **further) for dtype, further in kinds)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
