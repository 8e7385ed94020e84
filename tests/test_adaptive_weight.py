"""λ that follows the gradient norms: where it goes, its bounds, its state."""

import math

import pytest
import torch
from torch import nn

from wgan_fast import AdaptiveWeight, CriticLoss, critic_loss
from wgan_fast.reference import dual_norms


def test_finds_the_weight_at_which_the_norm_is_the_target():
    """f(x) = w·x, real and fake d apart: w·d against λ ‖w‖² rests at ‖w‖ = ‖d‖ / 2λ.

    So the zero-centred penalty alone has the norm that λ happens to give; for a norm of 1, λ must
    be ‖d‖ / 2.
    """
    critic = nn.Linear(3, 1, bias=False).double()
    fake = torch.randn(16, 3, dtype=torch.float64)
    d = torch.tensor([3.0, -4.0, 0.0], dtype=torch.float64)
    adaptive = AdaptiveWeight(10.0, target=1.0, rate=0.05)
    loss = CriticLoss(critic, penalty="zero", weight=adaptive)
    optimizer = torch.optim.SGD(critic.parameters(), 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        loss(fake + d, fake).backward()
        optimizer.step()
    assert adaptive.weight.item() == pytest.approx(2.5, rel=1e-3)
    assert critic.weight.norm().item() == pytest.approx(1.0, rel=1e-3)


def test_one_step_is_the_formula():
    adaptive = AdaptiveWeight(2.0, target=0.5, rate=0.1)
    adaptive.update(torch.tensor([0.8, 1.0]))
    assert adaptive.weight.item() == pytest.approx(2 * math.exp(0.1 * (0.9 - 0.5)), rel=1e-6)


@pytest.mark.parametrize(
    ("norm", "factor"),
    [(100.0, math.exp(0.1)), (math.inf, math.exp(0.1)), (0.0, math.exp(-0.1)), (math.nan, 1.0)],
)
def test_a_step_is_bounded(norm, factor):
    adaptive = AdaptiveWeight(2.0, target=1.5, rate=0.1)
    adaptive.update(torch.tensor(norm))
    assert adaptive.weight.item() == pytest.approx(2 * factor, rel=1e-6)


def test_the_weight_is_bounded():
    adaptive = AdaptiveWeight(2.0, rate=1.0, limits=(1.0, 3.0))
    for norm, bound in ((9.0, 3.0), (0.0, 1.0)):
        for _ in range(3):
            adaptive.update(torch.tensor(norm))
        assert adaptive.weight.item() == bound


def test_updates_where_it_lies_and_is_saved():
    loss = CriticLoss(nn.Linear(3, 1), penalty="adaptive")
    real, fake = torch.randn(2, 4, 3)
    before = loss.adaptive.weight
    start = before.data_ptr()
    loss(real, fake).backward()  # the update must not spoil what autograd kept
    assert loss.adaptive.weight is before
    assert before.data_ptr() == start
    assert before.item() != 10.0
    again = CriticLoss(nn.Linear(3, 1), penalty="adaptive")
    again.load_state_dict(loss.state_dict())
    assert again.adaptive.weight.item() == before.item()
    now = before.item()
    loss.eval()(real, fake)
    assert before.item() == now  # in training mode alone


@pytest.mark.parametrize("backend", ["explicit", "autograd", "first_order"])
def test_the_loss_has_the_weight_of_before_its_update(backend):
    critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    real, fake = torch.randn(2, 4, 3, dtype=torch.float64)
    alpha = torch.rand(4, dtype=torch.float64)
    adaptive = AdaptiveWeight(7.0)
    loss = CriticLoss(critic, weight=adaptive, backend=backend)(real, fake, alpha)
    expected = critic_loss(critic, real, fake, weight=7.0, alpha=alpha)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    found, wanted = (torch.autograd.grad(x, critic[0].weight)[0] for x in (loss, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    norms = dual_norms(critic, alpha[:, None] * real + (1 - alpha[:, None]) * fake)
    updated = 7.0 * math.exp(0.01 * max(-1.0, min(1.0, norms.mean().item() - 1)))
    assert adaptive.weight.item() == pytest.approx(updated, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_stays_float32_when_the_module_is_cast(dtype):
    critic = nn.Linear(3, 1)
    loss = CriticLoss(critic, weight=AdaptiveWeight(3.3, rate=0.001, target=0.0)).to(dtype)
    assert critic.weight.dtype == dtype
    weight = loss.adaptive.weight
    assert weight.dtype == torch.float32
    assert weight.item() == torch.tensor(3.3).item()  # not rounded on the way
    real, fake = torch.randn(2, 4, 3, dtype=dtype)
    loss(real, fake).backward()
    slope = min(1.0, critic.weight.double().norm().item())
    assert weight.item() == pytest.approx(3.3 * math.exp(0.001 * slope), rel=1e-5)
    assert loss.adaptive.to("meta", dtype).weight.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_takes_norms_of_a_half_type_without_losing_its_step(dtype):
    adaptive = AdaptiveWeight(2.0, target=1.0, rate=0.001)
    adaptive.update(torch.tensor([1.25, 1.75], dtype=dtype))
    assert adaptive.weight.item() == pytest.approx(2 * math.exp(0.001 * 0.5), rel=1e-6)


def test_is_float32_whatever_the_default():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        adaptive = AdaptiveWeight()
    finally:
        torch.set_default_dtype(before)
    assert adaptive.weight.dtype == torch.float32


ERRORS = {
    "initial": (ValueError, r"initial: expected a finite number > 0", {"initial": 0.0}),
    "bounds": (
        ValueError,
        r"initial, limits: .* got 10.0 and \(0.1, 5.0\)",
        {"limits": (0.1, 5.0)},
    ),
    "limits": (TypeError, r"limits: expected two numbers, got 3", {"limits": 3}),
    "rate": (ValueError, r"rate: expected a finite number > 0", {"rate": 0}),
    "target": (TypeError, r"target: expected a number", {"target": "1"}),
}


@pytest.mark.parametrize(("kind", "message", "arguments"), ERRORS.values(), ids=ERRORS)
def test_checks_its_arguments(kind, message, arguments):
    with pytest.raises(kind, match=message):
        AdaptiveWeight(**arguments)


def test_checks_what_it_is_updated_with():
    with pytest.raises(
        TypeError, match=r"gradient_norm: expected a floating point tensor, got 1.0"
    ):
        AdaptiveWeight().update(1.0)


def test_adaptive_and_a_number_exclude_each_other():
    with pytest.raises(ValueError, match=r"penalty, weight: .* got weight=3.0"):
        CriticLoss(nn.Linear(3, 1), penalty="adaptive", weight=3.0)


@pytest.mark.parametrize(("name", "value"), [("target", 2.0), ("sided", "one"), ("at", "real")])
def test_adaptive_has_settings_of_its_own(name, value):
    message = rf'penalty, {name}: "adaptive" has its own {name}, got {name}={value!r}; .*Penalty\('
    with pytest.raises(ValueError, match=message):
        CriticLoss(nn.Linear(3, 1), penalty="adaptive", **{name: value})
    message = r'penalty: "adaptive" keeps λ from call to call; take CriticLoss'
    with pytest.raises(ValueError, match=message):
        critic_loss(nn.Linear(3, 1), *torch.randn(2, 4, 3), penalty="adaptive", **{name: value})
