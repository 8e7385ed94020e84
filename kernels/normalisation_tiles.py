"""Rows in tiles: what the kernels of the normalisations' derivatives share.

A row of ``length`` numbers is ``runs`` runs of ``repeat``; a run has one element of γ. A tile is
``RUNS`` runs by ``SPAN`` of each one's numbers: whole runs of a row, or a piece of one.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

# A row in one tile is read once and stays in registers, at most 16 numbers per tensor and thread.
LARGEST_WHOLE = 8192
# A longer row is cut into tiles of this many.
TILE = 2048
NUMBERS_PER_THREAD = 8
# Programs that keep any GPU busy. Not the device's own number: the sums' order hangs on it, and
# the same numbers must come out everywhere.
ENOUGH_PROGRAMS = 1024
MOST_SPLITS = 256


@triton.jit
def columns_of(run_block, piece, runs, repeat, RUNS: tl.constexpr, SPAN: tl.constexpr):
    """(run, column, whether it is inside the row) of a tile: ``(RUNS,)`` and twice (RUNS, SPAN)."""
    run = run_block * RUNS + tl.arange(0, RUNS)
    column = run[:, None]
    inside = (run < runs)[:, None]
    if SPAN > 1:
        within = piece * SPAN + tl.arange(0, SPAN)
        column = column * repeat + within[None, :]
        inside = inside & (within < repeat)[None, :]
    return run, column, inside


@triton.jit
def gamma_of(gamma_pointer, group, run, runs, HAS_GAMMA: tl.constexpr):
    """A tile's elements of γ, ``(RUNS, 1)``; 1 where there is none."""
    gamma = tl.full(run.shape, 1, gamma_pointer.dtype.element_ty)
    if HAS_GAMMA:
        gamma = tl.load(gamma_pointer + group * runs + run, mask=run < runs, other=0)
    return gamma[:, None]


@triton.jit
def normal_of(x, mean_pointer, inverse, row, CENTRED: tl.constexpr):
    """x̂ = r (x − m(x)), or r x."""
    if CENTRED:
        x -= tl.load(mean_pointer + row)
    return x * inverse


@triton.jit
def total_of(partial_pointer, which, SPLITS: tl.constexpr):
    """One of a row's sums, from what the programs before have summed of it."""
    return tl.sum(tl.load(partial_pointer + which * SPLITS + tl.arange(0, SPLITS)))


class Tiles(NamedTuple):
    """How the launchers cut a row.

    Attributes:
        runs: elements of γ per row.
        repeat: numbers per element of γ.
        RUNS: runs per tile.
        SPAN: numbers of each run per tile.
    """

    runs: int
    repeat: int
    RUNS: int
    SPAN: int

    @classmethod
    def of(cls, x: torch.Tensor, repeat: int) -> "Tiles":
        """For the rows of x."""
        return cls.cut(x.shape[1], repeat, x.dtype.itemsize)

    @classmethod
    def cut(cls, length: int, repeat: int, itemsize: int) -> "Tiles":
        """A row in one tile if that fits into registers, else in tiles of the usual size."""
        runs = length // repeat
        wide = itemsize // 4  # float64 takes two registers
        across, along = triton.next_power_of_2(runs), triton.next_power_of_2(repeat)
        if across * along <= LARGEST_WHOLE // wide:
            return cls(runs, repeat, across, along)
        span = min(along, TILE // wide)
        return cls(runs, repeat, min(across, TILE // wide // span), span)

    @property
    def pieces(self) -> int:
        """Tiles per run, at least one."""
        return triton.cdiv(self.repeat, self.SPAN)

    @property
    def run_blocks(self) -> int:
        """Tiles over the runs."""
        return triton.cdiv(self.runs, self.RUNS)

    @property
    def count(self) -> int:
        """Tiles per row."""
        return self.run_blocks * self.pieces

    @property
    def warps(self) -> int:
        """Warps per program; 16 at most, for AMD's are twice as wide."""
        return min(max(self.RUNS * self.SPAN // (32 * NUMBERS_PER_THREAD), 1), 16)

    def geometry(self, groups: int) -> tuple[int, ...]:
        """What every kernel takes: length, runs, repeat, groups, pieces and tiles."""
        length = self.runs * self.repeat
        return length, self.runs, self.repeat, groups, self.pieces, self.count

    @property
    def options(self) -> dict[str, int | bool]:
        """The compile-time options of every kernel, and the compiler's."""
        return {
            "RUNS": self.RUNS,
            "SPAN": self.SPAN,
            "num_warps": self.warps,
            "enable_fp_fusion": True,  # Triton means to change its default
        }

    def splits(self, rows: int) -> int:
        """Programs that sum one row together; 0 where it lies in one tile."""
        if self.count == 1:
            return 0
        wanted = triton.next_power_of_2(triton.cdiv(ENOUGH_PROGRAMS, rows))
        return min(wanted, triton.next_power_of_2(self.count), MOST_SPLITS)

    def samples_per_program(self, rows: int) -> int:
        """Rows that one program sums into γ's shape: few enough to keep a GPU busy."""
        return triton.cdiv(rows * self.count, ENOUGH_PROGRAMS)
