"""What the checks of CUDA kernels share: compiling by NVRTC, launching, timing, comparing."""
import ctypes
import glob
from pathlib import Path

import nvidia
import torch

FOLDER = Path(__file__).parents[2] / "runtime/src/kernels/cuda"
SHARED_MEMORY_ATTRIBUTE = 8


def library(pattern):
    hits = [h for p in nvidia.__path__ for h in glob.glob(f"{p}/**/{pattern}", recursive=True)]
    return ctypes.CDLL(sorted(hits)[0] if hits else pattern.split("*")[0])


nvrtc, driver = library("libnvrtc.so.*"), ctypes.CDLL("libcuda.so.1")
torch.zeros(1, device="cuda")
modules = {}


def expect(code, what):
    if code:
        raise RuntimeError(f"{what}: error {code}")


def kernel(files, name, **definitions):
    """The kernel `name` of the sources `files`, one behind the other, compiled with these macros."""
    key = tuple(files), tuple(definitions.items())
    if key not in modules:
        major, minor = torch.cuda.get_device_capability()
        # What belongs to one architecture alone, as wgmma does to 9.0.
        feature = "a" if (major, minor) == (9, 0) else ""
        options = [f"--gpu-architecture=sm_{major}{minor}{feature}", "--std=c++17"]
        options += [f"-D{n}={v}" for n, v in definitions.items()]
        text = b"".join((FOLDER / f).read_bytes() for f in files)
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        expect(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"k.cu", 0, None, None), "create")
        arguments = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        expect(nvrtc.nvrtcCompileProgram(program, len(options), arguments), "compile")
        expect(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)), "size")
        code = ctypes.create_string_buffer(size.value)
        expect(nvrtc.nvrtcGetCUBIN(program, code), "code")
        modules[key] = ctypes.c_void_p()
        expect(driver.cuModuleLoadData(ctypes.byref(modules[key]), code), "load")
    function = ctypes.c_void_p()
    expect(driver.cuModuleGetFunction(ctypes.byref(function), modules[key], name.encode()), name)
    return function


def launch(function, grid, threads, shared, *arguments):
    """Tensors are passed by address, whole numbers as int, None as a null pointer, the rest as it is."""

    def value(a):
        if isinstance(a, torch.Tensor):
            return ctypes.c_void_p(a.data_ptr())
        if a is None:
            return ctypes.c_void_p(0)
        return ctypes.c_int(a) if isinstance(a, int) else a

    values = [value(a) for a in arguments]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values))
    if shared > 48 * 1024:
        expect(driver.cuFuncSetAttribute(function, SHARED_MEMORY_ATTRIBUTE, shared), "shared memory")
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    expect(driver.cuLaunchKernel(function, *grid, threads, 1, 1, shared, stream, pointers, None), "launch")


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


def off(found, expected):
    """The difference from `expected`, relative in L2."""
    return float((found.double() - expected).norm() / expected.norm().clamp(min=1e-30))
