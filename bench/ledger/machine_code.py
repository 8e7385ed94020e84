"""What a compiled kernel uses and how wide it reads and writes, from what the compiler left.

Registers and memory come from the machine code. On NVIDIA the accesses are counted in PTX, whose
``ld.global`` and ``st.global`` the assembler takes one to one; disassembling takes seconds.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import triton

_AMD_BITS = {
    "dword": 32, "dwordx2": 64, "dwordx3": 96, "dwordx4": 128, "ubyte": 8, "sbyte": 8, "byte": 8,
    "ushort": 16, "sshort": 16, "short": 16, "short_d16": 16, "short_d16_hi": 16,
}  # fmt: skip


class MachineCode(NamedTuple):
    """One kernel on one target.

    Attributes:
        registers: per thread.
        spills: bytes of local memory per thread on NVIDIA, spilled registers on AMD.
        shared: bytes of shared memory per block.
        threads: per block.
        loads: bits of each load instruction from global memory.
        stores: bits of each store instruction.
    """

    registers: int
    spills: int
    shared: int
    threads: int
    loads: list[int]
    stores: list[int]

    def bytes_per_thread(self, accesses: list[int], bits: int) -> int:
        """What the instructions of this width move."""
        return sum(width for width in accesses if width == bits) // 8


def of_triton(kernel: Any) -> MachineCode:
    """Of what :func:`triton.compile` returns."""
    threads = kernel.metadata.num_warps * kernel.metadata.target.warp_size
    shared = kernel.metadata.shared
    if "cubin" in kernel.asm:
        registers, spills, _ = usage(kernel.asm["cubin"])
        ptx = kernel.asm["ptx"]
        return MachineCode(
            registers, spills, shared, threads, _in_ptx("ld", ptx), _in_ptx("st", ptx)
        )
    text = kernel.asm["amdgcn"]

    def noted(name: str) -> int:
        return int(re.search(rf"\.{name}:\s*(\d+)", text)[1])

    def widths(kind: str) -> list[int]:
        found = re.findall(rf"\b(?:global|buffer|flat)_{kind}_(\w+)", text)
        return [_AMD_BITS[width] for width in found]

    spills = noted("vgpr_spill_count") + noted("sgpr_spill_count")
    return MachineCode(
        noted("vgpr_count"), spills, shared, threads, widths("load"), widths("store")
    )


def of_cubin(cubin: bytes, threads: int) -> MachineCode:
    """Of a cubin with one kernel that nvcc made."""
    sass = cuobjdump(cubin, "-sass")
    return MachineCode(*usage(cubin), threads, _in_sass("LDG", sass), _in_sass("STG", sass))


def usage(cubin: bytes) -> tuple[int, int, int]:
    """Registers, bytes of local memory and bytes of shared memory."""
    said = cuobjdump(cubin, "-res-usage")
    used = {key: int(n) for key, n in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", said)}
    return used["REG"], used["STACK"] + used["LOCAL"], used["SHARED"]


def cuobjdump(cubin: bytes, what: str) -> str:
    """Its answer; Triton brings it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, what, path]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _in_ptx(kind: str, ptx: str) -> list[int]:
    found = re.findall(rf"\b{kind}\.global[\w.:]*?(?:\.v(\d))?\.b(\d+)", ptx)
    return [int(count or 1) * int(bits) for count, bits in found]


def _in_sass(kind: str, sass: str) -> list[int]:
    found = []
    for modifiers in re.findall(rf"\b{kind}((?:\.\w+)+)", sass):
        width = re.search(r"\.[US]?(8|16|64|128)\b", modifiers)
        found.append(int(width[1]) if width else 32)
    return found
