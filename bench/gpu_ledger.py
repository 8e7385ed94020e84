"""``python -m bench.gpu_ledger``: what compilers make of the GPU kernels, as a table.

No GPU is needed: the kernels are compiled for real targets, and what came out is read. Writes
``bench/results/gpu_ledger.md``; the exit status is 1 if a kernel is not as good as it can be.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import triton

from bench.ledger import cases, launches
from bench.ledger.occupancy import occupancy
from bench.ledger.rows import CUDA_CASES, CUDA_TARGETS, Row, cuda_row, nvcc_version, triton_row

PATH = Path(__file__).resolve().parent / "results" / "gpu_ledger.md"
_BYTES_PER_SECOND = 3.0e12  # an H100's copy rate
_SIZES = {"64×3×64×64": 64 * 3 * 64**2, "256×3×128×128": 256 * 3 * 128**2,
          "1024×3×256×256": 1024 * 3 * 256**2}  # fmt: skip

_HEAD = """\
# GPU ledger

Written by `python -m bench.gpu_ledger` on a machine without a GPU. Nothing here is a time that was
measured.

One row per kernel and target, float32, sizes that are multiples of 16. Registers are per thread,
shared memory per block, in bytes. Occupancy is what registers, shared memory and threads leave of
the resident warps. `16 / 16` are the bytes of the widest load and store of a thread. `read` and
`written` are the bytes per element that the code moves, over the floor: each input read once, each
output written once. They are counted in Triton's own form of the kernel, argument by argument, and
again in PTX or AMD's assembly, as instructions times width times threads over the numbers of a
block; where the compiler pipelines a loop (\\*), the first count stands alone. `besides` has what
is moved once for all the rows of a program, or comes from the cache: γ, the sums in its shape, a
second look at a row. Long rows do not fit into the registers and go through two kernels; each of
them is at its floor, but the inputs are read twice in all.

The last column is the floor's time at 3.0 TB/s, an H100's copy rate, for a tensor of"""
_COLUMNS = ("kernel", "target", "registers", "spills", "shared", "occupancy", "load / store",
            "read", "written", "besides", "floor, µs")  # fmt: skip


class Section(NamedTuple):
    """A part of the ledger that stands or falls with the versions of what made it."""

    title: str
    versions: str
    text: Callable[[], str]


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """In Markdown."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def line(row: Row) -> tuple[str, ...]:
    """A row in words."""
    code, bytes_moved = row.code, row.read_floor + row.written_floor
    stores = max(code.stores) // 8 if row.written_floor else "–"
    return (
        row.kernel,
        row.target,
        str(code.registers),
        str(code.spills),
        str(code.shared),
        f"{occupancy(code, row.target):.0%}",
        f"{max(code.loads) // 8} / {stores}",
        f"{row.read:g} / {row.read_floor:g}" + ("\\*" if row.counted_twice is None else ""),
        f"{row.written:g} / {row.written_floor:g}",
        row.besides,
        ", ".join(f"{n * bytes_moved / _BYTES_PER_SECOND * 1e6:.2f}" for n in _SIZES.values()),
    )


@cache
def triton_rows() -> tuple[Row, ...]:
    """All Triton kernels on all targets."""
    float32 = [case for case in cases.CASES if "fp32" in case.elements]
    return tuple(triton_row(case, target) for case in float32 for target in cases.TARGETS)


@cache
def cuda_rows() -> tuple[Row, ...]:
    """All CUDA kernels on all of NVIDIA's targets."""
    return tuple(cuda_row(case, target) for case in CUDA_CASES for target in CUDA_TARGETS)


def _launches() -> str:
    rows = []
    for critic in launches.CRITICS:
        counted = launches.of(critic)
        rows.append((critic.sizes.rpartition(", B ")[0], *(str(n) for n in counted.values())))
    return table(("critic", *counted), rows) + (
        "\n\nA WGAN-GP critic step, loss and gradients without the optimiser. Views and allocations"
        "\nare not counted; every other ATen op or operator of ours is one launch at least."
        "\nCounted on a CPU, with its own way to images of few channels, which GPUs do not take."
        "\n`CriticLoop` puts a whole iteration into one CUDA graph, whose launch is one."
    )


def _ptxas() -> str:
    path = triton.knobs.nvidia.ptxas.path
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"\bV([\d.]+)", said)[1]


TRITON = Section(
    "Triton kernels",
    f"Triton {triton.__version__}, ptxas {_ptxas()}",
    lambda: table(_COLUMNS, [line(row) for row in triton_rows()]),
)
CUDA = Section(
    "CUDA kernels",
    f"nvcc {nvcc_version()}",
    lambda: table(_COLUMNS, [line(row) for row in cuda_rows()]),
)
LAUNCHES = Section(
    "Kernel launches per critic step", f"PyTorch {torch.__version__.partition('+')[0]}", _launches
)


def written(section: Section) -> str:
    """The section as it stands in the ledger."""
    return f"## {section.title}\n\nBy {section.versions}.\n\n{section.text()}\n"


def main() -> int:
    """Write the ledger."""
    if nvcc_version() is None:
        print("nvcc is not on PATH: the CUDA kernels cannot be compiled", file=sys.stderr)
        return 2
    sizes = ", ".join(f"{name} ({count:,})" for name, count in _SIZES.items())
    sections = [written(section) for section in (TRITON, CUDA, LAUNCHES)]
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text("\n".join([f"{_HEAD}\n{sizes} numbers.\n", *sections]))
    faults = [(row, fault) for row in (*triton_rows(), *cuda_rows()) for fault in row.faults()]
    for row, fault in faults:
        print(f"{row.kernel} on {row.target}: {fault}", file=sys.stderr)
    print(PATH)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
