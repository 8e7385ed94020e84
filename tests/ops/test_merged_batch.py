import pytest
import torch

from tests.harness import DTYPES, SHAPES, accumulation, layouts, opcheck
from tests.ops.test_interpolate import assert_mixed, inputs
from wgan_fast import ops
from wgan_fast.ops.merged_batch import _plain

IMPLEMENTATIONS = {"dispatched": ops.merged_batch, "plain": _plain}


def assert_merged(batch, real, fake, alpha):
    count = len(real)
    assert batch.dtype == real.dtype
    assert torch.equal(batch[:count], real)
    assert torch.equal(batch[count : 2 * count], fake)
    assert_mixed(batch[2 * count :], real, fake, alpha)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (0, 5)], ids=str)
def test_matches_float64(shape, dtype, implementation):
    real, fake, alpha = inputs(shape, dtype)
    batch = IMPLEMENTATIONS[implementation](real, fake, alpha)
    assert batch.shape == (3 * shape[0], *shape[1:])
    assert_merged(batch, real, fake, alpha)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_any_mix_of_layouts(implementation):
    real, fake, alpha = inputs((6, 3, 5, 4), torch.float32)
    for name, laid_out in layouts(real).items():
        for fake_laid_out in layouts(fake).values():
            batch = IMPLEMENTATIONS[implementation](laid_out, fake_laid_out, alpha)
            assert_merged(batch, real, fake, alpha)
            kept = torch.channels_last if name == "channels_last" else torch.contiguous_format
            assert batch.is_contiguous(memory_format=kept), name


def test_the_mix_is_the_interpolation_of_the_operator_that_is_differentiable():
    for dtype in DTYPES:
        real, fake, alpha = inputs((7, 3, 11), dtype)
        mixed = ops.merged_batch(real, fake, alpha)[14:]
        assert torch.equal(mixed, ops.interpolate(real, fake, alpha))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(dtype):
    opcheck(torch.ops.wgan_fast.merged_batch.default, inputs((3, 5, 2), dtype))
    real, fake, alpha = inputs((3, 5, 2, 4), dtype)
    there = torch.channels_last
    given = real.contiguous(memory_format=there), fake.contiguous(memory_format=there), alpha
    opcheck(torch.ops.wgan_fast.merged_batch.default, given)


def test_what_does_not_fit_is_refused():
    real, fake, alpha = inputs((3, 5), torch.float32)
    for given in (
        (real, fake[:2], alpha),
        (real, fake.double(), alpha),
        (real, fake, alpha[:2]),
        (real, fake, alpha.to(accumulation(torch.float64))),
    ):
        if ops.status()["merged_batch"]["cpu"] == "C++":
            with pytest.raises(RuntimeError, match=r"merged_batch: .* must"):
                torch.ops.wgan_fast.merged_batch(*given)
