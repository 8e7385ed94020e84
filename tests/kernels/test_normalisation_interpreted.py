"""The normalisations' Triton kernels, run on the CPU by Triton's interpreter, against float64."""

import pytest

from tests.harness import run_python

pytest.importorskip("triton", reason="Triton is not installed")

# As in test_interpreter.py: a new process. What is registered for GPUs is called with CPU tensors,
# so that the operator's way to the kernels is tested too.
CODE = """
import sys, torch
from tests.ops.test_normalisation import PLAIN, assert_close, everything, problem
from wgan_fast.kernels import normalisation_tiles as tiles
from wgan_fast.ops import normalisation as ops

TRITON = {
    "vjp": ops._triton_projected(before=True),
    "jvp": ops._triton_projected(before=False),
    "second": ops._triton_second,
    "parameters": ops._triton_parameters,
}
dtype = getattr(torch, sys.argv[1])
if sys.argv[2] == "small tiles":  # rows of many tiles, and several rows per program
    tiles.LARGEST_WHOLE, tiles.TILE, tiles.ENOUGH_PROGRAMS = 16, 32, 8

# rows, length, groups, repeat: one number, odd rows, runs of one number and one run per row, runs
# shorter and longer than a tile, more samples than a program takes, groups without samples.
GEOMETRIES = {
    "real tiles": (
        (1, 1, 1, 1), (3, 7, 1, 1), (4, 15, 4, 5), (4, 70, 2, 35),
        (1, 8193, 1, 1), (2, 9002, 1, 4501), (2, 8200, 2, 8200),
    ),
    "small tiles": ((5, 33, 1, 1), (4, 24, 2, 4), (2, 84, 1, 42)),
}[sys.argv[2]]
KINDS = ((True, True), (False, True), (True, False), (False, False))  # weighted, centred
for index, geometry in enumerate(GEOMETRIES):
    for weighted, centred in KINDS[:1] if geometry[1] > 1000 else (KINDS[0], KINDS[1 + index % 3]):
        given = problem(*geometry, dtype=dtype, weighted=weighted, centred=centred)
        wide = [g.double() if isinstance(g, torch.Tensor) else g for g in given]
        got, expected = everything(TRITON, *given), everything(PLAIN, *wide)
        assert [g.shape for g in got] == [e.shape for e in expected], geometry
        assert not any(g.isnan().any() for g in got), geometry
        assert_close(got, expected, dtype)
        # Without rows: nothing, and sums over nothing.
        no_rows = [None if g is None else g[:0] for g in given[:5]]
        none = everything(TRITON, *no_rows, *given[5:])
        assert [len(g) for g in none] == [0, 0, 0, *(len(g) for g in got[3:])]
        assert not any(g.any() for g in none)
given = problem(3, 24, 1, 4, dtype=dtype)
pairs = zip(everything(TRITON, *given), everything(TRITON, *given), strict=True)
assert all(torch.equal(one, other) for one, other in pairs)
print("all equal")
"""


@pytest.mark.parametrize(
    ("dtype", "tiles"), [("float32", "real tiles"), ("float64", "small tiles")]
)
def test_kernels_match_float64(dtype, tiles):
    assert "all equal" in run_python(CODE, dtype, tiles, TRITON_INTERPRET="1")
