import pytest
import torch

from tests.harness import DTYPES, SHAPES, accumulation, assert_matches, layouts, opcheck
from wgan_fast import ops
from wgan_fast.ops.interpolate import _plain

IMPLEMENTATIONS = {"dispatched": ops.interpolate, "plain": _plain}


def inputs(shape, dtype):
    real, fake = torch.randn(2, *shape, dtype=torch.float64).to(dtype)
    return real, fake, torch.rand(shape[0], dtype=accumulation(dtype))


def oracle(real, fake, alpha):
    weight = alpha.double().view(-1, *[1] * (real.dim() - 1))
    return weight * real.double() + (1 - weight) * fake.double()


def assert_mixed(result, real, fake, alpha):
    """Relative to the largest sample: a single mixed number may be almost 0."""
    assert_matches(result, oracle(real, fake, alpha), terms=torch.cat((real, fake)))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_float64(shape, dtype, implementation):
    real, fake, alpha = inputs(shape, dtype)
    result = IMPLEMENTATIONS[implementation](real, fake, alpha)
    assert result.dtype == dtype
    assert_mixed(result, real, fake, alpha)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_any_mix_of_layouts(implementation):
    real, fake, alpha = inputs((6, 3, 5, 4), torch.float32)
    for name, laid_out in layouts(real).items():
        for other, fake_laid_out in layouts(fake).items():
            result = IMPLEMENTATIONS[implementation](laid_out, fake_laid_out, alpha)
            assert result.stride() == torch.empty_like(laid_out).stride(), (name, other)
            assert_mixed(result, real, fake, alpha)


def test_the_ends_are_exact():
    real, fake, _ = inputs((4, 33), torch.float32)
    alpha = torch.tensor([0.0, 1.0, 0.0, 1.0])
    result = ops.interpolate(real, fake, alpha)
    assert torch.equal(result[0::2], fake[0::2])
    assert torch.equal(result[1::2], real[1::2])


def test_differentiable_twice_in_everything():
    real, fake, alpha = (t.requires_grad_() for t in inputs((3, 2, 4), torch.float64))
    assert torch.autograd.gradcheck(ops.interpolate, (real, fake, alpha))
    assert torch.autograd.gradgradcheck(ops.interpolate, (real, fake, alpha))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_keep_their_dtype(dtype):
    real, fake, alpha = (t.requires_grad_() for t in inputs((5, 3, 4), dtype))
    cotangent = torch.randn(5, 3, 4).to(dtype)
    ops.interpolate(real, fake, alpha).backward(cotangent)
    wide = [t.detach().double().requires_grad_() for t in (real, fake, alpha)]
    oracle(*wide).backward(cotangent.double())
    for ours, theirs in zip((real, fake, alpha), wide, strict=True):
        assert ours.grad.dtype == ours.dtype
        assert_matches(ours.grad, theirs.grad)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(dtype):
    real, fake, alpha = inputs((3, 5, 2), dtype)
    for needed in (False, True):
        arguments = [t.detach().requires_grad_(needed) for t in (real, fake, alpha)]
        opcheck(torch.ops.wgan_fast.interpolate.default, arguments)
