"""What the tests of device code share: a driver on the host, raw numbers, machine code."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
CUDA_SOURCES = HERE.parents[1] / "csrc" / "cuda"
ELEMENT_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
BITS = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16}


def compile_driver(name, folder):
    """The program's path, compiled so that a misaligned vector access or an overflow traps."""
    named = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    compiler = next((found for name in named if (found := shutil.which(name))), None)
    if compiler is None or os.name != "posix":
        pytest.skip("no C++ compiler on a POSIX system")
    flags = ["-std=c++20", "-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    program = folder / name
    source = HERE / f"{name}.cpp"
    subprocess.run([compiler, *flags, f"-I{CUDA_SOURCES}", source, "-o", program], check=True)
    return program


def run_driver(driver, message):
    """What the program answers; it fails where it has written outside of a tensor."""
    done = subprocess.run([driver], input=b"".join(message), capture_output=True)
    assert done.returncode == 0, f"{done.returncode}: 3 is a write outside of a tensor"
    return done.stdout


def raw(tensor):
    return tensor.contiguous().view(BITS[tensor.dtype]).numpy().tobytes()


def random_tensor(count, dtype):
    return torch.randn(count, dtype=torch.float64).to(dtype)


def random_remainder(dtype):
    """An address modulo 16."""
    steps = 16 // dtype.itemsize
    return int(torch.randint(steps, ())) * dtype.itemsize


def machine_code(source, architecture, folder):
    """(bytes of stack and spills, of all kernels; the kernels' SASS, None without cuobjdump)."""
    if shutil.which("nvcc") is None:
        pytest.skip("no CUDA compiler: nvcc is not on PATH")
    cubin = folder / "kernels.cubin"
    command = ["nvcc", "-std=c++20", "-O3", "-cubin", f"-arch={architecture}", "-Xptxas", "-v"]
    done = subprocess.run(
        [*command, f"-I{CUDA_SOURCES}", HERE / source, "-o", cubin], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    used = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", done.stderr)
    triton = importlib.util.find_spec("triton")
    tool = triton and Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump"
    if not tool or not tool.exists():
        return used, None
    sass = subprocess.run([tool, "-sass", cubin], capture_output=True, text=True, check=True).stdout
    return used, sass.split("Function :")[1:]
