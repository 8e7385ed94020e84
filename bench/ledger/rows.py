"""The ledger's rows, and what must be true of each of them."""

import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bench.ledger import machine_code, traffic
from bench.ledger.cases import KernelCase, compiled
from bench.ledger.machine_code import MachineCode

_FLOAT32 = 4
_DEVICE_CODE = Path(__file__).resolve().parents[2] / "csrc" / "cuda"


class Row(NamedTuple):
    """A kernel on a target, for float32; bytes are per element.

    Attributes:
        kernel: its name.
        target: the GPU's architecture.
        code: what the compiler made.
        read: bytes of the inputs.
        written: bytes of the outputs.
        read_floor: bytes that must be read, each input once.
        written_floor: bytes that must be written.
        besides: bytes that come from the cache or are moved once for many rows, by argument.
        counted_twice: whether the machine code's count agrees; None where a loop is pipelined.
    """

    kernel: str
    target: str
    code: MachineCode
    read: float
    written: float
    read_floor: float
    written_floor: float
    besides: str
    counted_twice: bool | None

    def faults(self) -> list[str]:
        """What keeps this kernel from being as good as it can be."""
        found = []
        if self.code.spills:
            found.append(f"spills {self.code.spills}")
        if max(self.code.loads) != 128:
            found.append(f"loads of {max(self.code.loads)} bits at most")
        if self.written_floor and max(self.code.stores) != 128:
            found.append(f"stores of {max(self.code.stores)} bits at most")
        if (self.read, self.written) != (self.read_floor, self.written_floor):
            found.append(
                f"reads {self.read} and writes {self.written} bytes per element, "
                f"not {self.read_floor} and {self.written_floor}"
            )
        if self.counted_twice is False:
            found.append("the machine code moves other bytes than Triton's own form")
        return found


def triton_row(case: KernelCase, target: str) -> Row:
    """Compile a Triton kernel and look at it."""
    kernel = compiled(case, "fp32", target)
    code = machine_code.of_triton(kernel)
    counted = traffic.accesses(kernel, case.block)
    agrees: bool | None = traffic.agrees(counted, code, case.block)
    if not agrees and target.startswith("gfx") and "scf.for" in kernel.asm["ttir"]:
        agrees = None  # the prologue and the epilogue of a pipeline repeat the loop's accesses
    loads, stores = counted["load"], counted["store"]
    again = len(case.cached) * _FLOAT32
    besides = [f"{name} {_FLOAT32} again" for name in case.cached]
    besides += [f"{n} {b}" for n, b in loads.items() if n not in case.reads]
    besides += [f"{n} {b}" for n, b in stores.items() if n not in case.writes]
    return Row(
        case.name,
        target,
        code,
        sum(loads[name] for name in set(case.reads)) - again,
        sum(stores[name] for name in set(case.writes)),
        len(case.reads) * _FLOAT32,
        len(case.writes) * _FLOAT32,
        ", ".join(besides),
        agrees,
    )


class CudaCase(NamedTuple):
    """A kernel of csrc/cuda: its device code and the instance to look at."""

    name: str
    header: str
    instance: str
    reads: int
    writes: int


def _rmsprop(name: str, *, centered: bool, momentum: bool) -> CudaCase:
    """The gradient is read alone; the parameter and its averages are written too."""
    tensors = 3 + centered + momentum
    options = f"{str(centered).lower()}, {str(momentum).lower()}"
    return CudaCase(
        name,
        "rmsprop.cuh",
        f"template __global__ void wgan_fast::rmsprop_kernel<float, float, {options}>("
        f"const __grid_constant__ wgan_fast::multi_tensor::Table<{tensors}>, "
        "const __grid_constant__ wgan_fast::RMSpropFactors<float>);",
        tensors,
        tensors - 1,
    )


CUDA_CASES = (
    CudaCase(
        "clip_weights_",
        "clip_weights.cuh",
        "template __global__ void wgan_fast::clip_weights_kernel<float, float>("
        "const __grid_constant__ wgan_fast::multi_tensor::Table<1>, float);",
        1,
        1,
    ),
    _rmsprop("rmsprop_", centered=False, momentum=False),
    _rmsprop("rmsprop_, centered, momentum", centered=True, momentum=True),
)
CUDA_TARGETS = ("sm_80", "sm_90", "sm_100")


@cache
def nvcc_version() -> str | None:
    """None where there is no CUDA compiler."""
    if shutil.which("nvcc") is None:
        return None
    said = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"\bV([\d.]+)", said)[1]


def cuda_row(case: CudaCase, target: str) -> Row:
    """Compile a CUDA kernel and look at it.

    It has no loop around its vector accesses, so that these, times the threads of a block, over its
    numbers are the bytes per element.
    """
    header = (_DEVICE_CODE / "multi_tensor.h").read_text()
    threads, vector_bytes = (
        int(re.search(rf"constexpr int {name} = (\d+);", header)[1])
        for name in ("kThreadsPerBlock", "kBytesPerVector")
    )
    of_one, of_more = re.search(
        r"kVectorsPerThread = kPointers == 1 \? (\d+) : (\d+);", header
    ).groups()
    vectors = int(of_one if case.reads == 1 else of_more)
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "instance.cu", Path(folder) / "instance.cubin"
        source.write_text(f'#include "{case.header}"\n{case.instance}\n')
        command = ["nvcc", "-std=c++20", "-O3", "-cubin", f"-arch={target}", f"-I{_DEVICE_CODE}"]
        subprocess.run([*command, source, "-o", cubin], check=True, capture_output=True)
        code = machine_code.of_cubin(cubin.read_bytes(), threads)
    numbers = threads * vectors * vector_bytes // _FLOAT32

    def per_element(accesses: list[int]) -> float:
        return code.bytes_per_thread(accesses, 128) * threads / numbers

    read, written = per_element(code.loads), per_element(code.stores)
    floors = case.reads * _FLOAT32, case.writes * _FLOAT32
    return Row(case.name, target, code, read, written, *floors, "", True)
