import math

import pytest
import torch

from tests.harness import DTYPES, SHAPES, accumulation, assert_matches, layouts, opcheck
from wgan_fast import ops
from wgan_fast.ops.gradient_norm_penalty import _plain, _plain_backward
from wgan_fast.ops.phi import Phi

OPERATORS = torch.ops.wgan_fast
FORWARD = {"dispatched": OPERATORS.gradient_norm_penalty, "plain": _plain}
BACKWARD = {"dispatched": OPERATORS.gradient_norm_penalty_backward, "plain": _plain_backward}
# (target, one-sided, power, p): WGAN-GP, WGAN-LP, zero-centred, a target in the middle of the
# norms; WGAN-div, the dual norms, and powers that are no integers.
FAMILY = (
    (1.0, False, 2.0, 2.0),
    (1.0, True, 2.0, 2.0),
    (0.0, False, 2.0, 2.0),
    (7.3, True, 2.0, 2.0),
    (0.0, False, 6.0, 2.0),
    (1.0, False, 2.0, 1.0),
    (1.0, True, 2.0, math.inf),
    (7.3, False, 1.5, math.inf),
    (7.3, True, 3.0, 1.0),
)
# (shape, member, with weights and mask): every shape for the first four, then a few for all.
CASES = [(s, member, False) for s in SHAPES if 0 not in s for member in FAMILY[:4]] + [
    (s, member, more) for s in ((3, 7), (2, 20_001)) for member in FAMILY for more in (False, True)
]
# Of a row of numbers by p, written out.
NORMS = {
    1.0: lambda rows: rows.abs().sum(1),
    2.0: lambda rows: rows.square().sum(1).sqrt(),
    math.inf: lambda rows: rows.abs().amax(1),
}


def gradients(shape, dtype, family=FAMILY[0]):
    """Rows whose norms lie on both sides of every target, at a distance that rounding keeps."""
    *_, power, p = family
    rows = torch.randn(shape, dtype=torch.float64)
    if 0 in shape:
        return rows.to(dtype)
    norms = NORMS[p](rows.flatten(1)).clamp(min=1e-9)
    below, between, above = torch.rand(3, shape[0], dtype=torch.float64)
    ranges = torch.stack([0.2 + 0.6 * below, 1.3 + 5 * between, 8 + 4 * above])
    if power > 4:
        ranges = 0.7 + ranges / 10  # whose power float16 can hold, and its products
    wanted = ranges[torch.randint(3, (shape[0],)), torch.arange(shape[0])]
    return (rows * (wanted / norms).view(-1, *[1] * (len(shape) - 1))).to(dtype)


def masks_and_weights(shape, dtype, with_them):
    """(weights, mask): a mask of zeros and ones, so that 16 bits hold every product."""
    if not with_them:
        return None, None
    kept = (torch.rand(shape) < 0.8).to(dtype)
    return torch.rand(shape[0], dtype=accumulation(dtype)) + 0.5, kept


def written_out(wide, target, one_sided, power, p, mask=None):
    """(norm, penalty), differentiable."""
    masked = wide if mask is None else wide * mask.double()
    norm = NORMS[p](masked.flatten(1))
    excess = norm - target
    excess = excess.clamp(min=0) if one_sided else excess.abs()
    return norm, excess**power


def oracle(gradient, *family, weights=None, mask=None):
    """The definition, with v from autograd: the derivative of the weighted mean penalty."""
    wide = gradient.detach().double().requires_grad_()
    norm, penalty = written_out(wide, *family, mask=mask)
    weighted = penalty if weights is None else penalty * weights.double()
    (direction,) = torch.autograd.grad(weighted.mean(), wide)
    return norm.detach(), penalty.detach(), direction


def backward_terms(grads, incoming, norm, family, weights=None):
    """Of rows of one number, whose terms may cancel: the size of what their results are sums of."""
    if incoming is None or not len(norm) or incoming.numel() != len(norm):
        return None
    phi, norm = Phi(*family[:3]), norm.double()
    total = grads[0].double().abs() + (grads[1].double() * phi.slope(norm)).abs()
    bent = phi.curvature(norm).abs() + phi.slope(norm).abs() / norm.clamp(min=1e-9)
    share = 1 / len(norm) if weights is None else weights.double() / len(norm)
    return total + share * bent * incoming.double().flatten().abs()


@pytest.mark.parametrize("implementation", FORWARD)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "family", "more"), CASES, ids=str)
def test_matches_float64(shape, dtype, family, more, implementation):
    gradient = gradients(shape, dtype, family)
    weights, mask = masks_and_weights(shape, dtype, more)
    norm, penalty, direction = FORWARD[implementation](gradient, *family, weights, mask)
    assert norm.dtype == penalty.dtype == accumulation(dtype)
    assert direction.dtype == dtype
    expected = oracle(gradient, *family, weights=weights, mask=mask)
    sums = 1e-12 if dtype == torch.float64 else 1e-5
    target, _, power, _ = family
    assert_matches(norm, expected[0], sums)
    largest = expected[0] + target  # what an excess is the difference of
    assert_matches(penalty, expected[1], power * sums, terms=largest**power)
    # Relative to what the direction would be without cancellation in n − target.
    slope = power * (largest ** (power - 1)).max() / shape[0]
    unit = oracle(gradient, 0.0, False, 1.0, family[3], weights=weights, mask=mask)[2]
    # A float32 sum of absolute values is the one norm that is off by more than a rounding.
    rounding = sums if family[3] == 1 and dtype == torch.float32 else None
    assert_matches(direction, expected[2], rounding, terms=slope * unit * shape[0])


@pytest.mark.parametrize("implementation", FORWARD)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_gradient_gives_zero_not_nan(dtype, implementation):
    for family in FAMILY:
        target, one_sided, power, _ = family
        gradient = gradients((4, 3, 5), dtype, family)
        gradient[1] = 0
        norm, penalty, direction = FORWARD[implementation](gradient, *family)
        assert norm[1] == 0
        assert penalty[1].item() == pytest.approx(0 if one_sided else target**power, rel=1e-6)
        assert torch.equal(direction[1], torch.zeros_like(direction[1]))
        ones = torch.ones_like(norm)
        result = BACKWARD[implementation](ones, ones, gradient, gradient, norm, *family)
        assert torch.equal(result[1], torch.zeros_like(result[1]))
        assert result.isfinite().all()
        incoming = torch.randn_like(gradient)
        result = BACKWARD[implementation](ones, ones, incoming, gradient, norm, *family)
        if family == (0.0, False, 2.0, 2.0):  # v = 2 g / B, with a derivative at zero, too
            torch.testing.assert_close(result[1], incoming[1] * 2 / 4)
            continue
        assert torch.equal(result[1], torch.zeros_like(result[1]))
        assert result.isfinite().all()


def test_a_norm_that_is_reached_several_times_shares_its_derivative():
    gradient = torch.tensor([[3.0, -3.0, 1.0], [0.5, 0.0, 0.0]], dtype=torch.float64)
    for run in FORWARD.values():
        norm, _, direction = run(gradient, 0.0, False, 2.0, math.inf)
        assert norm.tolist() == [3.0, 0.5]
        assert direction.tolist() == [[1.5, -1.5, 0.0], [0.5, 0.0, 0.0]]  # 2n/B, halved


def test_a_nan_is_seen_in_its_row_alone():
    gradient = gradients((3, 50), torch.float32)
    gradient[1, 17] = float("nan")
    for run in FORWARD.values():
        for family in FAMILY:
            norm, penalty, direction = run(gradient, *family)
            assert norm.isnan().tolist() == [False, True, False]
            assert penalty.isnan().tolist() == [False, True, False]
            assert direction[1].isnan().any()
            assert direction[[0, 2]].isfinite().all()


def test_what_the_family_does_not_have_is_refused():
    if ops.status()["gradient_norm_penalty"]["cpu"] != "C++":
        pytest.skip("the compiled implementation checks")
    gradient = gradients((3, 5), torch.float32)
    for options, message in (
        ({"p": 3.0}, "p must be 1, 2 or infinity"),
        ({"power": 0.5}, "power must be at least 1"),
        ({"weights": torch.rand(2)}, "weights must be one"),
        ({"mask": torch.rand(3, 4)}, "mask must have the shape"),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.gradient_norm_penalty(gradient, **options)


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("implementation", FORWARD)
def test_nothing_in_nothing_out(implementation, shape):
    for p in NORMS:
        norm, penalty, direction = FORWARD[implementation](torch.randn(shape), 1.0, False, 2.0, p)
        assert norm.shape == penalty.shape == shape[:1]
        assert torch.equal(norm, torch.zeros(shape[0]))
        assert direction.shape == shape


@pytest.mark.parametrize("implementation", FORWARD)
def test_any_layout(implementation):
    gradient = gradients((6, 3, 5, 4), torch.float32)
    for name, laid_out in layouts(gradient).items():
        results = FORWARD[implementation](laid_out, 1.0, False)
        assert results[2].stride() == torch.empty_like(laid_out).stride(), name
        kept = (torch.rand(6, 3, 5, 4) < 0.5).float()
        for mask in layouts(kept).values():
            masked = FORWARD[implementation](laid_out, 1.0, False, mask=mask)[2]
            assert_matches(masked, oracle(gradient, 1.0, False, 2.0, 2.0, mask=kept)[2], 1e-5)
        for ours, theirs in zip(results, oracle(gradient, 1.0, False, 2.0, 2.0), strict=True):
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
@pytest.mark.parametrize("with_direction", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "family", "more"), CASES, ids=str)
def test_backward_matches_float64(shape, dtype, with_direction, family, more, implementation):
    gradient = gradients(shape, dtype, family)
    weights, mask = masks_and_weights(shape, dtype, more)
    grads = torch.randn(2, shape[0], dtype=accumulation(dtype))
    incoming = torch.randn(shape).to(dtype) if with_direction else None

    wide = gradient.double().requires_grad_()
    norm, penalty = written_out(wide, *family, mask=mask)
    total = (grads[0].double() * norm).sum() + (grads[1].double() * penalty).sum()
    if incoming is not None:
        weighted = penalty if weights is None else penalty * weights.double()
        (direction,) = torch.autograd.grad(weighted.mean(), wide, create_graph=True)
        total = total + (direction * incoming.double()).sum()
    (expected,) = torch.autograd.grad(total, wide)

    forward_norm = norm.detach().to(accumulation(dtype))
    result = BACKWARD[implementation](
        grads[0], grads[1], incoming, gradient, forward_norm, *family, weights, mask
    )
    assert result.dtype == dtype
    terms = backward_terms(grads, incoming, forward_norm, family, weights)
    sums = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype)
    assert_matches(result, expected, sums, terms=terms)


@pytest.mark.parametrize("family", FAMILY, ids=str)
def test_differentiable_twice(family):
    gradient = gradients((3, 2, 4), torch.float64, family).requires_grad_()
    target, one_sided, power, p = family
    weights, mask = torch.rand(3, dtype=torch.float64), torch.rand(3, 2, 4, dtype=torch.float64)

    def outputs(gradient):
        return ops.gradient_norm_penalty(
            gradient, target, one_sided, power=power, p=p, weights=weights, mask=mask
        )

    assert torch.autograd.gradcheck(outputs, (gradient,))
    assert torch.autograd.gradgradcheck(outputs, (gradient,))


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_squared_norm_has_its_derivatives_at_zero(one_sided, masked):
    """φ = Σ m² g², v = 2 w m² g / B: by hand, at rows of zeros and at others."""
    gradient = torch.randn(4, 3, dtype=torch.float64)
    gradient[[0, 2]] = 0
    gradient.requires_grad_()
    weights = torch.rand(4, dtype=torch.float64)
    mask = torch.rand(4, 3, dtype=torch.float64) if masked else None
    squared = torch.ones(4, 3, dtype=torch.float64) if mask is None else mask.square()
    _, penalty, direction = ops.gradient_norm_penalty(
        gradient, 0.0, one_sided, weights=weights, mask=mask
    )
    factors = torch.randn(4, dtype=torch.float64)
    (first,) = torch.autograd.grad(penalty @ factors, gradient, create_graph=True)
    by_hand = 2 * factors[:, None] * squared * gradient
    torch.testing.assert_close(first, by_hand.detach(), rtol=1e-12, atol=1e-12)
    vector = torch.randn(4, 3, dtype=torch.float64)
    (second,) = torch.autograd.grad((first * vector).sum(), gradient)
    torch.testing.assert_close(second, 2 * factors[:, None] * squared * vector)
    for create_graph in (False, True):
        (turned,) = torch.autograd.grad(
            (direction * vector).sum(), gradient, retain_graph=True, create_graph=create_graph
        )
        by_hand = 2 * weights[:, None] / 4 * squared * vector
        torch.testing.assert_close(turned.detach(), by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 2.5, 3.0, 6.0])
@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("p", list(NORMS))
def test_derivatives_of_every_order_are_zero_where_the_gradient_is(power, target, p):
    if (power, target, p) == (2.0, 0.0, 2.0):
        target = 0.5  # the squared norm has true derivatives there
    gradient = torch.randn(3, 4, dtype=torch.float64)
    gradient[1] = 0
    alone = gradient[[0, 2]].clone().requires_grad_()
    gradient.requires_grad_()

    def derivatives(at, rows):
        """Of all outputs, the first three, each with fixed factors."""
        norm, penalty, direction = ops.gradient_norm_penalty(
            at, target, power=power, p=p, weights=torch.full((len(at),), float(len(at))).double()
        )
        found, total = [], (norm * 0.7 + penalty).sum() + (direction * factors[rows]).sum()
        for _ in range(3):
            if not total.requires_grad:
                break
            (one,) = torch.autograd.grad(total, at, create_graph=True, materialize_grads=True)
            found.append(one.detach())
            total = (one * factors[rows]).sum()
        return found

    factors = torch.randn(3, 4, dtype=torch.float64)
    ours, others = derivatives(gradient, [0, 1, 2]), derivatives(alone, [0, 2])
    assert len(ours) >= 2
    for found, wanted in zip(ours, others, strict=True):
        assert torch.equal(found[1], torch.zeros_like(found[1]))
        torch.testing.assert_close(found[[0, 2]], wanted, rtol=1e-10, atol=1e-10)


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
    weights, mask = masks_and_weights((3, 5, 2), dtype, True)
    member = (0.5, False, 3.0, math.inf, weights, mask)
    opcheck(OPERATORS.gradient_norm_penalty.default, (gradient, *member))
