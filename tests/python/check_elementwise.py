"""Checks the CUDA kernels of dropout and of the derivatives of GELU and layer normalization against
PyTorch in float64, and times them at MPNet-base's sizes, 64 rows of 512 tokens.

usage: check_elementwise.py
needs: a GPU of compute capability 8.0 or newer, PyTorch with CUDA (its NVRTC compiles the kernels)

Relative in L2: 1e-6 in f32, 2e-3 in bf16 and fp16, which is the rounding of the result. Exits 1 where a
check fails.
"""
import ctypes
import glob
import sys
from pathlib import Path

import nvidia
import torch

SOURCE = Path(__file__).parents[2] / "runtime/src/kernels/cuda/elementwise.cu"
THREADS, BLOCKS, NORM_BLOCKS = 256, 2048, 396
ELEMENTS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
libraries = [h for p in nvidia.__path__ for h in glob.glob(f"{p}/**/libnvrtc.so.*", recursive=True)]
nvrtc, driver = ctypes.CDLL(sorted(libraries)[0]), ctypes.CDLL("libcuda.so.1")
torch.zeros(1, device="cuda")
noise = torch.Generator(device="cuda").manual_seed(0)
failed = False


def expect(code, what):
    if code:
        raise RuntimeError(f"{what}: error {code}")


def compiled(element, width):
    """A function that finds the source's kernels, compiled for that type and width."""
    major, minor = torch.cuda.get_device_capability()
    options = [f"--gpu-architecture=sm_{major}{minor}", "--std=c++17", f"-DELEMENT={element}", f"-DWIDTH={width}"]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    expect(nvrtc.nvrtcCreateProgram(ctypes.byref(program), SOURCE.read_bytes(), b"k.cu", 0, None, None), "create")
    arguments = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    expect(nvrtc.nvrtcCompileProgram(program, len(options), arguments), "compile")
    expect(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)), "size")
    code = ctypes.create_string_buffer(size.value)
    expect(nvrtc.nvrtcGetCUBIN(program, code), "code")
    module = ctypes.c_void_p()
    expect(driver.cuModuleLoadData(ctypes.byref(module), code), "load")

    def kernel(name):
        function = ctypes.c_void_p()
        expect(driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode()), name)
        return function

    return kernel


def launch(function, blocks, *arguments):
    values = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else a for a in arguments]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values))
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    expect(driver.cuLaunchKernel(function, blocks, 1, 1, THREADS, 1, 1, 0, stream, pointers, None), "launch")


def milliseconds(start, runs=10):
    times = []
    for _ in range(runs + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        start()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return round(sorted(times[3:])[runs // 2], 3)


def check(what, found, expected, dtype):
    global failed
    off = float((found.double() - expected).norm() / expected.norm())
    good = off < (1e-6 if dtype == torch.float32 else 2e-3)
    failed |= not good
    return f"{what} {off:.1e}{'' if good else ' FAILED'}"


def floats(*shape, dtype=torch.float32):
    return torch.randn(*shape, device="cuda", generator=noise).to(dtype)


def odd(count):
    return torch.randint(0, 2**31, (count,), device="cuda", generator=noise) * 2 + 1


for dtype, element in ELEMENTS.items():
    kernel = compiled(element, 768)
    for rows, width in ((37, 768), (29, 50), (42624, 768), (42624, 3072)):
        x, dy = floats(rows, width, dtype=dtype), floats(rows, width, dtype=dtype)
        y, of_rows, of_columns = torch.empty_like(x), odd(rows), odd(width)
        rows32, columns32 = of_rows.to(torch.uint32), of_columns.to(torch.uint32)
        blocks = min(-(-x.numel() // (THREADS * (8 if element else 4))), BLOCKS)
        count, limit = ctypes.c_longlong(x.numel()), round(0.1 * 2**32)
        settings = count, ctypes.c_int(width), ctypes.c_uint(limit), ctypes.c_float(1 / 0.9)
        start = lambda: launch(kernel("factor_dropout"), blocks, y, x, rows32, columns32, *settings)
        start()
        kept = (of_rows[:, None] * of_columns) % 2**32 >= limit
        line = [check("dropout", y, torch.where(kept, x.double() / 0.9, 0.0), dtype), milliseconds(start)]
        for approximate in (0, 1):
            start = lambda: launch(kernel("gelu_grad"), blocks, y, dy, x, count, ctypes.c_int(approximate))
            start()
            wide = x.double().requires_grad_()
            form = "tanh" if approximate else "none"
            torch.nn.functional.gelu(wide, approximate=form).backward(dy.double())
            line += [check(f"gelu {form}", y, wide.grad, dtype), milliseconds(start)]
        print(dtype, rows, width, *line, flush=True)
for width in (50, 128, 768, 1024):
    kernel = compiled(0, width)
    for rows in (5, 42624):
        x, dy, scale = floats(rows, width), floats(rows, width), floats(width)
        wide, wide_scale = x.double().requires_grad_(), scale.double().requires_grad_()
        bias = torch.zeros_like(wide_scale).requires_grad_()
        torch.nn.functional.layer_norm(wide, (width,), wide_scale, bias).backward(dy.double())
        mean, inverse = x.mean(1), (x.var(1, unbiased=False) + 1e-5).rsqrt()
        dx, d_scale, d_bias = torch.empty_like(x), torch.empty_like(scale), torch.empty_like(scale)
        blocks = min(-(-rows // 8), NORM_BLOCKS)
        parts = torch.empty(blocks * 2 * width, device="cuda")

        def start():
            launch(kernel("layer_norm_grad"), blocks, dx, parts, dy, x, scale, mean, inverse, ctypes.c_longlong(rows))
            launch(kernel("sum_layer_norm"), -(-2 * width // 32), d_scale, d_bias, parts, ctypes.c_int(blocks))

        start()
        parts_of = (("x", dx, wide.grad), ("scale", d_scale, wide_scale.grad), ("bias", d_bias, bias.grad))
        print("layer norm", rows, width, *(check(*p, torch.float32) for p in parts_of), milliseconds(start), flush=True)
sys.exit(failed)
