"""The penalty family: every member against its float64 reference, on every backend."""

import pytest
import torch
from torch import nn

import wgan_fast
from tests.double_backward.oracle import error, gradients
from tests.penalty_family import (
    BATCH,
    CRITICS,
    assert_agree,
    convolutional,
    draws,
    expected_loss,
    expected_penalty,
    mlp,
    seeing_each_other,
    steep,
)
from wgan_fast.double_backward import choice, merged
from wgan_fast.penalties import NAMED


@pytest.mark.parametrize("backend", ["explicit", "autograd"])
@pytest.mark.parametrize("make", CRITICS.values(), ids=CRITICS)
@pytest.mark.parametrize("name", NAMED)
def test_gradient_penalty(name, make, backend):
    critic, shape = make()
    critic = steep(critic, shape)
    *samples, same = draws(shape, name)
    penalty, stats = wgan_fast.gradient_penalty(
        critic, *samples[:2], penalty=name, backend=backend, return_stats=True, **same
    )
    expected = expected_penalty(name, critic, *samples)
    assert expected.item() > 0
    assert_agree(penalty, expected, critic)
    assert stats.penalty.item() == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("backend", ["explicit", "autograd"])
@pytest.mark.parametrize("make", CRITICS.values(), ids=CRITICS)
@pytest.mark.parametrize("name", NAMED)
def test_critic_loss(name, make, backend):
    critic, shape = make()
    critic = steep(critic, shape)
    *samples, same = draws(shape, name)
    for _ in range(2):  # the second call knows what the first found out
        loss, stats = wgan_fast.critic_loss(
            critic,
            *samples[:2],
            penalty=name,
            backend=backend,
            return_stats=True,
            **{key: seed.clone_state() for key, seed in same.items()},
        )
        assert_agree(loss, expected_loss(name, critic, *samples, NAMED[name].weight), critic)
    expected = expected_penalty(name, critic, *samples)
    assert stats.penalty.item() == pytest.approx(expected.item(), rel=1e-10)
    assert choice.unmerged.get(critic, NAMED[name].at, torch.Size(shape)) is None


@pytest.mark.parametrize("name", NAMED)
def test_samples_that_see_each_other(name):
    critic, shape = seeing_each_other()
    *samples, same = draws(shape, name)
    loss = wgan_fast.critic_loss(critic, *samples[:2], penalty=name, weight=3.0, **same)
    assert_agree(loss, expected_loss(name, critic, *samples, 3.0), critic)
    assert choice.unmerged.get(critic, NAMED[name].at, torch.Size(shape))


@pytest.mark.parametrize("name", [name for name in NAMED if name != "max"])
def test_in_slices(name):
    critic, shape = convolutional()
    *samples, same = draws(shape, name)
    loss = wgan_fast.critic_loss(critic, *samples[:2], penalty=name, chunk_size=4, **same)
    assert_agree(loss, expected_loss(name, critic, *samples, NAMED[name].weight), critic)


@pytest.mark.parametrize("name", ["max", "div", "dragan", "r1+r2"])
def test_a_batch_beyond_the_cache(name, monkeypatch):
    """On a CPU it is cut into slices from the second call on, but for a maximum."""
    monkeypatch.setattr(merged, "_FITS_THE_CACHE", 64)
    layers = nn.Linear(5, 7), nn.LeakyReLU(0.2), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 1)
    critic = steep(nn.Sequential(*layers).double(), (BATCH, 5))
    *samples, same = draws((BATCH, 5), name)
    for _ in range(3):
        seeds = {key: seed.clone_state() for key, seed in same.items()}
        loss = wgan_fast.critic_loss(critic, *samples[:2], penalty=name, **seeds)
        assert_agree(loss, expected_loss(name, critic, *samples, NAMED[name].weight), critic)


def test_a_maximum_is_not_taken_in_slices():
    critic, shape = mlp()
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    for function in (wgan_fast.critic_loss, wgan_fast.gradient_penalty):
        with pytest.raises(ValueError, match=r"chunk_size: expected None .* maximum .* got 2"):
            function(critic, real, fake, penalty="max", chunk_size=2)
    with pytest.raises(ValueError, match=r"reduction: .* maximum"):
        wgan_fast.gradient_penalty(critic, real, fake, penalty="max", reduction="sum")


@pytest.mark.parametrize("name", NAMED)
def test_first_order(name):
    smooth = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.SiLU(), nn.Linear(6, 1))
    critic = steep(smooth.double(), (BATCH, 5))
    *samples, same = draws((BATCH, 5), name)
    loss = wgan_fast.critic_loss(
        critic, *samples[:2], penalty=name, backend="first_order", weight=1.0, **same
    )
    assert_agree(loss, expected_loss(name, critic, *samples, 1.0), critic, 1e-6)


@pytest.mark.parametrize("name", NAMED)
def test_frozen(name):
    critic, shape = mlp()
    critic = steep(critic, shape)
    *samples, same = draws(shape, name)
    step = wgan_fast.freeze(critic, torch.randn(shape, dtype=torch.float64), penalty=name)
    assert step.weight == NAMED[name].weight
    loss, stats = step(*samples[:2], return_stats=True, **same)
    assert_agree(loss, expected_loss(name, critic, *samples, NAMED[name].weight), critic)
    expected = expected_penalty(name, critic, *samples)
    assert stats.penalty.item() == pytest.approx(expected.item(), rel=1e-10)
    assert step.graph(samples[0]) is not None


@pytest.mark.parametrize("backend", ["explicit", "autograd", "first_order"])
@pytest.mark.parametrize("name", NAMED)
def test_zero_gradients_give_zero_and_no_nan(name, backend):
    """A score with no slope anywhere: φ(0), and no gradient from the penalty."""
    critic = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).double()
    nn.init.zeros_(critic[2].weight)
    *samples, same = draws((BATCH, 5), name)
    penalty = wgan_fast.gradient_penalty(
        critic, *samples[:2], penalty=name, backend=backend, **same
    )
    at_zero = 0.0 if NAMED[name].sided == "one" else NAMED[name].target ** NAMED[name].power
    assert penalty.item() == at_zero * NAMED[name].parts
    for found in gradients(penalty, critic):
        assert found is None or torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize("name", NAMED)
def test_in_float32(name):
    critic, shape = mlp()
    critic = steep(critic, shape)
    narrow = mlp()[0].float()
    narrow.load_state_dict(critic.state_dict())
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    alpha = torch.rand(BATCH, dtype=torch.float64)
    options = {"alpha": alpha.float()} if NAMED[name].at in ("mix", "dragan") else {}
    noise = None
    if name == "dragan":
        options["generator"] = torch.Generator().manual_seed(torch.randint(2**31, ()).item())
        noise = torch.rand(shape, generator=options["generator"].clone_state()).double()
    loss = wgan_fast.critic_loss(narrow, real.float(), fake.float(), penalty=name, **options)
    expected = expected_loss(name, critic, real, fake, alpha, noise, NAMED[name].weight)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)
    found = [gradient.double() for gradient in gradients(loss, narrow)]
    assert error(found, gradients(expected, critic)) < 1e-3


def hessian_products(loss, parameters):
    """Of the sum of the loss's gradients: the sum of the Hessian's rows."""
    first = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    total = torch.cat([gradient.flatten() for gradient in first]).sum()
    return torch.autograd.grad(total, parameters, materialize_grads=True)


@pytest.mark.parametrize("name", ["r1", "r2", "zero", "r1+r2"])
def test_squared_norms_have_true_second_derivatives_at_zero_gradients(name):
    """f(x) = w · tanh(V x), w = 0: ‖∇f‖² = ‖Σ wⱼ sⱼ vⱼ‖² is a polynomial in w."""
    critic = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    nn.init.zeros_(critic[2].weight)
    parameters = list(critic.parameters())
    real, fake = torch.randn(2, 5, 4, dtype=torch.float64)
    alpha = torch.rand(5, dtype=torch.float64)
    drawn = {"alpha": alpha} if NAMED[name].between else {}
    ours = wgan_fast.gradient_penalty(critic, real, fake, penalty=name, backend="autograd", **drawn)
    mix = alpha[:, None] * real + (1 - alpha[:, None]) * fake
    expected = 0
    for x in {"r1": [real], "r2": [fake], "zero": [mix], "r1+r2": [real, fake]}[name]:
        slopes = critic[2].weight * (1 - torch.tanh(critic[0](x)).square())  # (B, 6)
        expected = expected + (slopes @ critic[0].weight).square().sum(1).mean()
    found, wanted = hessian_products(ours, parameters), hessian_products(expected, parameters)
    assert wanted[2].abs().max() > 0.01
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sided", ["two", "one"])
@pytest.mark.parametrize("p", [1.0, 2.0, float("inf")])
@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0, 6.0])
def test_second_derivatives_are_finite_at_zero_gradients(power, p, sided):
    critic = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    nn.init.zeros_(critic[2].weight)
    parameters = list(critic.parameters())
    real, fake = torch.randn(2, 5, 4, dtype=torch.float64)
    for target in (0.0, 1.0):
        form = wgan_fast.Penalty(power=power, target=target, p=p, sided=sided)
        penalty = wgan_fast.gradient_penalty(critic, real, fake, penalty=form, backend="autograd")
        found = hessian_products(penalty, parameters)
        if (power, target, p) == (2.0, 0.0, 2.0):
            assert found[2].abs().max() > 0
        else:
            assert all(torch.equal(each, torch.zeros_like(each)) for each in found)
