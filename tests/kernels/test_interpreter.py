"""The Triton kernels, run on the CPU by Triton's interpreter, against float64."""

import pytest

from tests.harness import DTYPES, run_python

pytest.importorskip("triton", reason="Triton is not installed")

# The interpreter is chosen when a kernel is decorated: a new process, where no other test imported
# it. The launchers get rows, as the operators give them.
CODE = """
import os, sys, torch
from tests.harness import SHAPES, accumulation, assert_matches
from tests.ops.test_gradient_norm_penalty import (
    FAMILY, backward_terms, gradients, masks_and_weights,
)
from tests.ops.test_interpolate import assert_mixed
from wgan_fast.kernels.gradient_norm_penalty import gradient_norm_penalty_rows
from wgan_fast.kernels.gradient_norm_penalty_backward import gradient_norm_penalty_backward_rows
from wgan_fast.kernels.interpolate import interpolate_rows
from wgan_fast.kernels.merged_batch import merged_batch_rows
from wgan_fast.ops.gradient_norm_penalty import _plain, _plain_backward

torch.manual_seed(int(os.environ["WGAN_FAST_TEST_SEED"]))
dtype = getattr(torch, sys.argv[1])
wide = accumulation(dtype)
sums = 1e-12 if dtype == torch.float64 else 1e-5
for shape in (*SHAPES[:2], (3, 3, 31, 29), (2, 2048), (2, 9_001), (1, 20_001), (4, 0), (0, 5)):
    rows, length = shape[0], torch.Size(shape[1:]).numel()
    real, fake = torch.randn(2, rows, length, dtype=torch.float64).to(dtype)
    alpha, output = torch.rand(rows, dtype=wide), torch.full_like(real, float("nan"))
    interpolate_rows(real, fake, alpha, output)
    assert_mixed(output, real, fake, alpha)
    batch = torch.full((3 * rows, length), float("nan"), dtype=dtype)
    merged_batch_rows(real, fake, alpha, batch)
    assert torch.equal(batch[: 2 * rows], torch.cat((real, fake)))
    assert_mixed(batch[2 * rows :], real, fake, alpha)

    # Each member of the family in two of the four dtypes at least.
    chosen = FAMILY if dtype in (torch.float64, torch.bfloat16) else FAMILY[:4]
    for number, family in enumerate(chosen[:2] if length > 10_000 else chosen):
        target, one_sided, power, p = family
        gradient = gradients((rows, length), dtype, family)
        gradient[1:2] = 0
        weights, mask = masks_and_weights((rows, length), dtype, number % 2)
        wide_weights, wide_mask = (t if t is None else t.double() for t in (weights, mask))
        # Rows in one block and in parts: 16384 is the kernels' own limit.
        for block in (1, 16384) if length else (16384,):
            norm, penalty = torch.full((2, rows), float("nan"), dtype=wide)
            direction, back = (torch.full_like(gradient, float("nan")) for _ in range(2))
            gradient_norm_penalty_rows(
                gradient, norm, penalty, direction, family, weights, mask, block
            )
            expected = _plain(gradient.double(), *family, wide_weights, wide_mask)
            assert_matches(norm, expected[0], sums)
            terms = (expected[0] + target) ** power
            assert_matches(penalty, expected[1], power * sums, terms=terms)
            unit = _plain(gradient.double(), 0.0, False, 1.0, p, wide_weights, wide_mask)[2]
            slopes = power * (expected[0] + target) ** (power - 1)
            terms = unit * slopes.max() if rows else unit
            assert_matches(direction, expected[2], terms=terms)
            for incoming in (None, fake):
                given = torch.randn(2, rows, dtype=wide).unbind()
                gradient_norm_penalty_backward_rows(
                    *given, incoming, gradient, norm, back, family, weights, mask, block
                )
                expected_back = _plain_backward(
                    *(g.double() for g in given), None if incoming is None else incoming.double(),
                    gradient.double(), norm.double(), *family, wide_weights, wide_mask,
                )
                sums_in = {torch.float64: 1e-12, torch.float32: 1e-5}
                terms = backward_terms(torch.stack(given), incoming, norm, family, weights)
                assert_matches(back, expected_back, sums_in.get(dtype), terms=terms)
print("all equal")
"""

# What is no number must not be lost on the way to the norm, whatever the norm.
NAN_CODE = """
import math, torch
from wgan_fast.kernels.gradient_norm_penalty import gradient_norm_penalty_rows

for p in (1.0, 2.0, math.inf):
    for one_sided in (False, True):
        for block in (1, 16384):
            gradient = torch.randn(3, 9000)
            gradient[1, 8500] = float("nan")
            norm, penalty, direction = torch.empty(3), torch.empty(3), torch.empty_like(gradient)
            gradient_norm_penalty_rows(
                gradient, norm, penalty, direction, (1.0, one_sided, 2.0, p), None, None, block
            )
            assert norm.isnan().tolist() == penalty.isnan().tolist() == [False, True, False]
            assert direction[1].isnan().any() and direction[[0, 2]].isfinite().all()
print("all seen")
"""


def test_nan_is_seen():
    assert "all seen" in run_python(NAN_CODE, TRITON_INTERPRET="1")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_match_float64(dtype):
    name = str(dtype).removeprefix("torch.")
    assert "all equal" in run_python(CODE, name, TRITON_INTERPRET="1")
