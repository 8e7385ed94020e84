import pytest
import torch

from tests.harness import DTYPES, SHAPES, accumulation, assert_matches, layouts, opcheck
from wgan_fast import ops
from wgan_fast.ops.gradient_norm_penalty import _plain, _plain_backward

OPERATORS = torch.ops.wgan_fast
FORWARD = {"dispatched": OPERATORS.gradient_norm_penalty, "plain": _plain}
BACKWARD = {"dispatched": OPERATORS.gradient_norm_penalty_backward, "plain": _plain_backward}
# (target, one-sided): WGAN-GP, WGAN-LP, zero-centred, and a target in the middle of the norms.
FAMILY = ((1.0, False), (1.0, True), (0.0, False), (7.3, True))


def gradients(shape, dtype):
    """Rows whose norms lie on both sides of every target, at a distance that rounding keeps."""
    rows = torch.randn(shape, dtype=torch.float64)
    norms = rows.flatten(1).norm(dim=1).clamp(min=1e-9)
    below, between, above = torch.rand(3, shape[0], dtype=torch.float64)
    ranges = torch.stack([0.2 + 0.6 * below, 1.3 + 5 * between, 8 + 4 * above])
    wanted = ranges[torch.randint(3, (shape[0],)), torch.arange(shape[0])]
    return (rows * (wanted / norms).view(-1, *[1] * (len(shape) - 1))).to(dtype)


def oracle(gradient, target, one_sided):
    """The definition, with v from autograd: the derivative of the mean penalty."""
    wide = gradient.detach().double().requires_grad_()
    norm = wide.flatten(1).square().sum(1).sqrt()
    excess = norm - target
    penalty = (excess.clamp(min=0) if one_sided else excess).square()
    (direction,) = torch.autograd.grad(penalty.mean(), wide)
    return norm.detach(), penalty.detach(), direction


@pytest.mark.parametrize("implementation", FORWARD)
@pytest.mark.parametrize(("target", "one_sided"), FAMILY)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [s for s in SHAPES if 0 not in s], ids=str)
def test_matches_float64(shape, dtype, target, one_sided, implementation):
    gradient = gradients(shape, dtype)
    norm, penalty, direction = FORWARD[implementation](gradient, target, one_sided)
    assert norm.dtype == penalty.dtype == accumulation(dtype)
    assert direction.dtype == dtype
    expected = oracle(gradient, target, one_sided)
    sums = 1e-12 if dtype == torch.float64 else 1e-5
    assert_matches(norm, expected[0], sums)
    assert_matches(penalty, expected[1], sums, terms=(expected[0] + target) ** 2)
    terms = 2 * gradient.double().flatten(1) * (1 + target / expected[0]).view(-1, 1) / shape[0]
    assert_matches(direction, expected[2], terms=terms)


@pytest.mark.parametrize("implementation", FORWARD)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_gradient_gives_zero_not_nan(dtype, implementation):
    gradient = gradients((4, 3, 5), dtype)
    gradient[1] = 0
    for target, one_sided in FAMILY:
        norm, penalty, direction = FORWARD[implementation](gradient, target, one_sided)
        assert norm[1] == 0
        assert penalty[1].item() == pytest.approx(0 if one_sided else target**2)
        assert torch.equal(direction[1], torch.zeros_like(direction[1]))
        ones = torch.ones_like(norm)
        result = BACKWARD[implementation](ones, ones, gradient, gradient, norm, target, one_sided)
        assert torch.equal(result[1], torch.zeros_like(result[1]))
        assert result.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("implementation", FORWARD)
def test_nothing_in_nothing_out(implementation, shape):
    norm, penalty, direction = FORWARD[implementation](torch.randn(shape), 1.0, False)
    assert norm.shape == penalty.shape == shape[:1]
    assert torch.equal(norm, torch.zeros(shape[0]))
    assert direction.shape == shape


@pytest.mark.parametrize("implementation", FORWARD)
def test_any_layout(implementation):
    gradient = gradients((6, 3, 5, 4), torch.float32)
    for name, laid_out in layouts(gradient).items():
        results = FORWARD[implementation](laid_out, 1.0, False)
        assert results[2].stride() == torch.empty_like(laid_out).stride(), name
        for ours, theirs in zip(results, oracle(gradient, 1.0, False), strict=True):
            assert_matches(ours, theirs, 1e-5)
        for other, incoming in layouts(torch.randn(6, 3, 5, 4)).items():
            norm = results[0]
            result = BACKWARD[implementation](norm, norm, incoming, laid_out, norm, 1.0, False)
            plain = _plain_backward(
                norm.double(), norm.double(), incoming.double(), gradient.double(), norm.double(),
                1.0, False,
            )  # fmt: skip
            assert result.stride() == torch.empty_like(laid_out).stride(), (name, other)
            assert_matches(result, plain, 1e-5)


@pytest.mark.parametrize("implementation", BACKWARD)
@pytest.mark.parametrize(("target", "one_sided"), FAMILY)
@pytest.mark.parametrize("with_direction", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 3, 31, 29), (5, 100_003)], ids=str)
def test_backward_matches_float64(shape, dtype, with_direction, target, one_sided, implementation):
    gradient = gradients(shape, dtype)
    weights = torch.randn(2, shape[0], dtype=accumulation(dtype))
    incoming = torch.randn(shape).to(dtype) if with_direction else None

    wide = gradient.double().requires_grad_()
    norm = wide.flatten(1).square().sum(1).sqrt()
    excess = norm - target
    penalty = (excess.clamp(min=0) if one_sided else excess).square()
    total = (weights[0].double() * norm).sum() + (weights[1].double() * penalty).sum()
    if incoming is not None:
        (direction,) = torch.autograd.grad(penalty.mean(), wide, create_graph=True)
        total = total + (direction * incoming.double()).sum()
    (expected,) = torch.autograd.grad(total, wide)

    forward_norm = norm.detach().to(accumulation(dtype))
    result = BACKWARD[implementation](
        weights[0], weights[1], incoming, gradient, forward_norm, target, one_sided
    )
    assert result.dtype == dtype
    assert_matches(result, expected, {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype))


@pytest.mark.parametrize(("target", "one_sided"), FAMILY)
def test_differentiable_twice(target, one_sided):
    gradient = gradients((3, 2, 4), torch.float64).requires_grad_()

    def outputs(gradient):
        return ops.gradient_norm_penalty(gradient, target, one_sided)

    assert torch.autograd.gradcheck(outputs, (gradient,))
    assert torch.autograd.gradgradcheck(outputs, (gradient,))


def test_same_bits_whatever_the_threads():
    gradient = gradients((3, 70_001), torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = ops.gradient_norm_penalty(gradient)
        torch.set_num_threads(2)
        together = ops.gradient_norm_penalty(gradient)
    finally:
        torch.set_num_threads(before)
    if ops.status()["gradient_norm_penalty"]["cpu"] == "plain PyTorch":
        pytest.skip("only the compiled implementation promises this")
    for one, two in zip(alone, together, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("needed", [False, True])
def test_opcheck(needed, dtype):
    gradient = gradients((3, 5, 2), dtype).requires_grad_(needed)
    opcheck(OPERATORS.gradient_norm_penalty.default, (gradient, 1.0, False))
    norm = torch.rand(3, dtype=accumulation(dtype))
    for incoming in (None, torch.randn(3, 5, 2).to(dtype)):
        opcheck(
            OPERATORS.gradient_norm_penalty_backward.default,
            (norm, norm, incoming, gradient.detach(), norm, 1.0, True),
        )
