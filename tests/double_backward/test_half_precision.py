"""Float16 ends at 65,504: the explicit engine's gradients are finite where autograd's are."""

import copy

import pytest
import torch
from torch import nn

import wgan_fast

B, WIDTH = 64, 4
PENALTIES = ("gp", "zero", "r1", "r2", "r1+r2", "div", "max")


def steep(factor):
    critic = nn.Sequential(nn.Linear(WIDTH, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    critic[2].weight.data *= factor
    return critic


def of(critic, dtype, what, backend, inputs, **options):
    """The gradients of a loss in float16, or under autocast from float32, or in float64."""
    module = copy.deepcopy(critic).to(torch.float32 if dtype == "autocast" else dtype)
    real, fake, alpha = (x.to(next(module.parameters()).dtype) for x in inputs)
    between = wgan_fast.Penalty.named(options["penalty"]).at == "mix"
    options |= {"backend": backend, "alpha": alpha} if between else {"backend": backend}
    with torch.autocast("cpu", torch.float16, enabled=dtype == "autocast"):
        loss = getattr(wgan_fast, what)(module, real, fake, **options)
    return torch.cat([
        g.flatten().double()
        for g in torch.autograd.grad(
            loss, list(module.parameters()), allow_unused=True, materialize_grads=True
        )
    ])  # fmt: skip


WHAT = {
    "penalty": ("gradient_penalty", {}),
    "loss": ("critic_loss", {}),
    "hinge": ("critic_loss", {"objective": "hinge"}),
}


def compare(critics, width, dtype, name, penalty):
    """How many of the critics autograd is finite on: there, the explicit gradients are right."""
    what, options = WHAT[name]
    options = options | {"penalty": penalty}
    compared = 0
    for critic in critics:
        inputs = torch.randn(B, width), torch.randn(B, width), torch.rand(B)
        autograd = of(critic, dtype, what, "autograd", inputs, **options)
        if not autograd.isfinite().all():
            continue
        exact = of(critic, torch.float64, what, "autograd", inputs, **options)
        allowed = max((autograd - exact).norm(), 0.02 * exact.norm())
        explicit = of(critic, dtype, what, "explicit", inputs, **options)
        assert explicit.isfinite().all()
        assert (explicit - exact).norm() <= 2 * allowed
        compared += 1
    return compared


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", WHAT)
@pytest.mark.parametrize("dtype", [torch.float16, "autocast"], ids=str)
def test_finite_and_right_wherever_autograd_is_finite(dtype, name, penalty):
    critics = [steep(factor) for factor in (0.1, 1, 5, 10, 20, 50, 100, 200)]
    assert compare(critics, WIDTH, dtype, name, penalty) >= 3


def test_a_scaler_finds_its_factor():
    """The gradients of a steep critic pass GradScaler's check; its factor does not go to zero."""
    critic = steep(100)
    optimizer = torch.optim.SGD(critic.parameters(), lr=1e-9)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    real, fake = torch.randn(2, B, WIDTH)
    before = critic[0].weight.clone()
    for _ in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = wgan_fast.critic_loss(critic, real, fake, penalty="r1", backend="explicit")
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 1.0
    assert not torch.equal(critic[0].weight, before)


def test_large_features_of_small_slopes():
    """Sums over the batch of large activations: the loss's own part, without a penalty."""
    critic = nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 1))
    real, fake = torch.randn(2, B, WIDTH)
    options = {"penalty": "gp", "weight": 0.0}
    inputs = 8000 * real.abs(), 100 * fake, torch.rand(B)
    exact = of(critic, torch.float64, "critic_loss", "autograd", inputs, **options)
    half = of(critic, "autocast", "critic_loss", "explicit", inputs, **options)
    assert half.isfinite().all()
    assert (half - exact).norm() < 0.02 * exact.norm()


def balanced(factor):
    """Steep in its middle alone: the scores and the input's gradient tell nothing of it."""
    layers = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 1)
    for layer, by in zip(layers, (factor, factor**-2, factor), strict=True):
        layer.weight.data *= by
    first, second, third = layers
    return nn.Sequential(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2), third)


@pytest.mark.parametrize("penalty", ["gp", "r1", "r1+r2", "max"])
@pytest.mark.parametrize("name", WHAT)
@pytest.mark.parametrize("dtype", [torch.float16, "autocast"], ids=str)
def test_what_overflows_inside_is_computed_once_more(dtype, name, penalty):
    critics = [balanced(factor) for factor in (16, 64, 100, 200, 400)]
    assert compare(critics, 8, dtype, name, penalty) >= 2


def test_a_critic_that_overflowed_is_remembered():
    real, fake = torch.randn(2, B, 8)

    def calls_and_gradients(critic):
        calls = []
        hook = critic.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
        with hook, torch.autocast("cpu", torch.float16):
            loss = wgan_fast.critic_loss(critic, real, fake, penalty="r1", backend="explicit")
        gradients = torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True)
        return calls, torch.cat([g.flatten() for g in gradients if g is not None])

    overflowed = 0
    for factor in (64, 100, 150, 200, 300):
        critic = balanced(factor)
        calls, first = calls_and_gradients(critic)
        again, second = calls_and_gradients(critic)
        assert again == [2 * B]  # it knows the proof, and whether the first step overflowed
        if calls == [2 * B, B, 2 * B]:  # ... which then was computed once more
            overflowed += 1
            assert torch.equal(first, second)
    assert overflowed >= 1


@pytest.mark.parametrize("penalty", ["r1", "r1+r2"])
def test_narrow_copies_of_weights_are_no_rows_of_samples(penalty):
    """As many outputs as the batch has samples, under autocast: still one batch."""
    calls = []
    critic = nn.Sequential(nn.Linear(WIDTH, 2 * B), nn.LeakyReLU(0.2), nn.Linear(2 * B, 1))
    critic.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    real, fake = torch.randn(2, B, WIDTH)
    for _ in range(2):
        calls.clear()
        with torch.autocast("cpu", torch.bfloat16):
            wgan_fast.critic_loss(critic, real, fake, penalty=penalty, backend="explicit")
    assert calls == [2 * B]
