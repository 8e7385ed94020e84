"""The Triton kernels, run on the CPU by Triton's interpreter, against float64."""

import pytest

from tests.harness import DTYPES, run_python

pytest.importorskip("triton", reason="Triton is not installed")

# The interpreter is chosen when a kernel is decorated: a new process, where no other test imported
# it. The launchers get rows, as the operators give them.
CODE = """
import sys, torch
from tests.harness import SHAPES, accumulation, assert_matches
from tests.ops.test_gradient_norm_penalty import FAMILY, gradients
from wgan_fast.kernels import gradient_norm_penalty as kernels
from wgan_fast.kernels.interpolate import interpolate_rows
from wgan_fast.kernels.merged_batch import merged_batch_rows
from wgan_fast.ops.gradient_norm_penalty import _plain, _plain_backward
from wgan_fast.ops.interpolate import _plain as plain_interpolate

dtype = getattr(torch, sys.argv[1])
wide = accumulation(dtype)
sums = 1e-12 if dtype == torch.float64 else 1e-5
for shape in (*SHAPES[:2], (9, 3, 31, 29), (2, 2048), (2, 20_001), (4, 0), (0, 5)):
    rows, length = shape[0], torch.Size(shape[1:]).numel()
    real, fake = torch.randn(2, rows, length, dtype=torch.float64).to(dtype)
    alpha, output = torch.rand(rows, dtype=wide), torch.full_like(real, float("nan"))
    interpolate_rows(real, fake, alpha, output)
    mixed = plain_interpolate(real.double(), fake.double(), alpha.double())
    assert_matches(output, mixed)
    batch = torch.full((3 * rows, length), float("nan"), dtype=dtype)
    merged_batch_rows(real, fake, alpha, batch)
    assert torch.equal(batch[: 2 * rows], torch.cat((real, fake)))
    assert_matches(batch[2 * rows :], mixed)

    gradient = gradients((rows, length), dtype)
    gradient[1:2] = 0
    for target, one_sided in FAMILY:
        norm, penalty = torch.full((2, rows), float("nan"), dtype=wide)
        direction, back = (torch.full_like(gradient, float("nan")) for _ in range(2))
        kernels.gradient_norm_penalty_rows(gradient, norm, penalty, direction, target, one_sided)
        expected = _plain(gradient.double(), target, one_sided)
        assert_matches(norm, expected[0], sums)
        assert_matches(penalty, expected[1], sums, terms=(expected[0] + target) ** 2)
        assert_matches(direction, expected[2])
        for incoming in (None, fake):
            weights = torch.randn(2, rows, dtype=wide)
            kernels.gradient_norm_penalty_backward_rows(
                *weights, incoming, gradient, norm, back, target, one_sided
            )
            expected_back = _plain_backward(
                *weights.double(), None if incoming is None else incoming.double(),
                gradient.double(), norm.double(), target, one_sided,
            )
            sums_in = {torch.float64: 1e-12, torch.float32: 1e-5}
            assert_matches(back, expected_back, sums_in.get(dtype))
print("all equal")
"""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_match_float64(dtype):
    name = str(dtype).removeprefix("torch.")
    assert "all equal" in run_python(CODE, name, TRITON_INTERPRET="1")
