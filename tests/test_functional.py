"""The drop-in functions against the reference, as users call them."""

import pytest
import torch
from torch import nn

import wgan_fast
from tests.harness import assert_matches
from wgan_fast import reference

SAMPLES = {
    "tabular": (7, 5),
    "signal": (4, 3, 16),
    "image": (4, 3, 8, 8),
    "volume": (2, 1, 4, 4, 4),
    "one sample": (1, 1),
}


def critic_for(shape):
    """A smooth critic of any input rank: every term of the second derivative is there."""
    width = torch.Size(shape[1:]).numel()
    return nn.Sequential(
        nn.Flatten(), nn.Linear(width, 9), nn.SiLU(), nn.Linear(9, 4), nn.Tanh(), nn.Linear(4, 1)
    ).double()


def data(shape):
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    return real, fake, torch.rand(shape[0], dtype=torch.float64)


def gradients(loss, critic):
    # The last bias moves no gradient: zero, where autograd says None.
    parameters = list(critic.parameters())
    return torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)


def assert_same(ours, theirs, critic):
    """The same value and the same gradient of every parameter."""
    assert_matches(ours.detach(), theirs.detach(), 1e-12)
    for mine, other in zip(gradients(ours, critic), gradients(theirs, critic), strict=True):
        assert_matches(mine, other, 1e-12)


@pytest.mark.parametrize("backend", ["auto", "autograd"])
@pytest.mark.parametrize(("target", "sided"), [(1.0, "two"), (0.05, "one"), (0.0, "two")])
@pytest.mark.parametrize("shape", SAMPLES.values(), ids=SAMPLES)
def test_gradient_penalty_and_critic_loss(shape, target, sided, backend):
    critic, (real, fake, alpha) = critic_for(shape), data(shape)
    options = {"target": target, "sided": sided}
    ours = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, backend=backend, **options)
    assert_same(ours, reference.gradient_penalty(critic, real, fake, alpha, **options), critic)
    assert_same(
        wgan_fast.critic_loss(
            critic, real, fake, alpha=alpha, weight=3.0, drift=0.2, backend=backend, **options
        ),
        reference.critic_loss(critic, real, fake, alpha, weight=3.0, drift=0.2, **options),
        critic,
    )


def test_alpha_is_the_textbooks_draw():
    critic, (real, fake, _) = critic_for((6, 3, 4, 4)), data((6, 3, 4, 4))
    torch.manual_seed(11)
    textbook = torch.rand(6, 1, 1, 1, dtype=torch.float64)
    expected = reference.gradient_penalty(critic, real, fake, textbook.flatten())
    torch.manual_seed(11)
    assert_same(wgan_fast.gradient_penalty(critic, real, fake, "cpu"), expected, critic)
    generator = torch.Generator().manual_seed(11)
    drawn = wgan_fast.gradient_penalty(critic, real, fake, generator=generator)
    assert_same(drawn, expected, critic)
    given = wgan_fast.gradient_penalty(critic, real, fake, alpha=textbook)
    assert_same(given, expected, critic)


def test_weight_and_reductions():
    critic, (real, fake, alpha) = critic_for((5, 3)), data((5, 3))

    def penalty(**options):
        return wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, **options)

    expected = reference.gradient_penalty(critic, real, fake, alpha)
    assert_same(penalty(weight=10), 10 * expected, critic)
    each = penalty(reduction="none")
    assert each.shape == (5,)
    assert_same(each.mean(), expected, critic)
    assert_same(penalty(reduction="sum", weight=2.0), 2 * 5 * expected, critic)
    # each sample's own penalty, with its own incoming gradient
    weights = torch.randn(5, dtype=torch.float64)
    x = reference.interpolate(real, fake, alpha).requires_grad_()
    by_hand = (weights * reference.penalty(reference.gradient_norms(critic, x))).sum()
    assert_same((weights * each).sum(), by_hand, critic)


def test_stats():
    critic, (real, fake, alpha) = critic_for((5, 3)), data((5, 3))
    x = reference.interpolate(real, fake, alpha).requires_grad_()
    norms = reference.gradient_norms(critic, x).detach()
    penalty, stats = wgan_fast.gradient_penalty(
        critic, real, fake, alpha=alpha, weight=7.0, return_stats=True
    )
    assert_matches(stats.gradient_norms, norms, 1e-12)
    assert_matches(7 * stats.penalty, penalty.detach(), 1e-12)

    loss, seen = wgan_fast.critic_loss(
        critic, real, fake, alpha=alpha, weight=7.0, drift=0.5, return_stats=True
    )
    assert not any(value.requires_grad for value in seen)
    real_score, fake_score = critic(real).mean(), critic(fake).mean()
    expected = wgan_fast.CriticStats(
        loss, real_score - fake_score, stats.penalty, norms.mean(), real_score, fake_score
    )
    for mine, other in zip(seen, expected, strict=True):
        assert_matches(mine, other.detach(), 1e-12)


def test_gradient_norms_are_differentiable():
    critic, (real, _, _) = critic_for((4, 3, 5)), data((4, 3, 5))
    norms = wgan_fast.gradient_norms(critic, real)
    assert norms.shape == (4,)
    theirs = reference.gradient_norms(critic, real.clone().requires_grad_())
    assert_matches(norms.detach(), theirs.detach(), 1e-12)
    assert_same(((norms - 1) ** 2).mean(), ((theirs - 1) ** 2).mean(), critic)


def test_generator_loss_and_interpolate():
    critic, (real, fake, alpha) = critic_for((4, 6)), data((4, 6))
    fake.requires_grad_()
    (ours,) = torch.autograd.grad(wgan_fast.generator_loss(critic, fake), fake)
    (theirs,) = torch.autograd.grad(reference.generator_loss(critic, fake), fake)
    assert_matches(ours, theirs, 1e-12)
    expected = reference.interpolate(real, fake.detach(), alpha)
    assert_matches(wgan_fast.interpolate(real, fake, alpha.view(4, 1)).detach(), expected, 1e-14)


def test_detach_keeps_the_generator_out():
    critic, generator = critic_for((5, 3)), nn.Linear(2, 3).double()
    real, _, alpha = data((5, 3))
    fake = generator(torch.randn(5, 2, dtype=torch.float64))
    wgan_fast.gradient_penalty(critic, real, fake).backward()
    wgan_fast.critic_loss(critic, real, fake).backward()
    assert all(p.grad is None for p in generator.parameters())

    inside = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, detach=False)
    ours = torch.autograd.grad(inside, list(generator.parameters()), retain_graph=True)
    x = reference.interpolate(real, fake, alpha)
    by_hand = reference.penalty(reference.gradient_norms(critic, x)).mean()
    theirs = torch.autograd.grad(by_hand, list(generator.parameters()))
    for mine, other in zip(ours, theirs, strict=True):
        assert_matches(mine, other, 1e-12)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_value_alone_where_gradients_are_off(mode):
    critic, (real, fake, alpha) = critic_for((5, 3)), data((5, 3))
    expected = reference.gradient_penalty(critic, real, fake, alpha).detach()
    with mode():
        value = wgan_fast.gradient_penalty(critic, real + 0, fake + 0, alpha=alpha)
        norms = wgan_fast.gradient_norms(critic, real + 0)
        loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha)
    assert not any(result.requires_grad for result in (value, norms, loss))
    assert_matches(value.clone(), expected, 1e-12)


def test_zero_gradient_gives_zero_not_nan():
    dead = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    nn.init.constant_(dead[0].bias, -1e6)
    real, fake, _ = data((5, 3))
    penalty = wgan_fast.gradient_penalty(dead, real, fake)
    assert penalty.item() == 1.0
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients(penalty, dead))


def test_patch_scores_are_summed_per_sample():
    critic = nn.Conv2d(2, 1, 3, padding=1).double()
    real, fake, alpha = data((4, 2, 6, 6))
    ours = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha)
    assert_same(ours, reference.gradient_penalty(critic, real, fake, alpha), critic)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_low_precision_accumulates_in_float32(dtype):
    critic = nn.Sequential(nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, 1)).to(dtype)
    real, fake = torch.randn(2, 8, 64).to(dtype)
    alpha = torch.rand(8)
    penalty = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha)
    loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha)
    assert penalty.dtype == loss.dtype == torch.float32
    wide = nn.Sequential(nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, 1)).double()
    wide.load_state_dict(critic.state_dict())
    expected = reference.gradient_penalty(wide, real.double(), fake.double(), alpha.double())
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 1e-1, torch.float32: 1e-5}[dtype]
    assert_matches(penalty.detach(), expected.detach(), tolerance)
    for mine, other in zip(gradients(penalty, critic), gradients(expected, wide), strict=True):
        assert mine.dtype == dtype
        assert_matches(mine, other, 2 * tolerance)


def test_under_autocast():
    critic = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    real, fake = torch.randn(2, 8, 64)
    alpha = torch.rand(8)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha)
    assert penalty.dtype == torch.float32
    expected = reference.gradient_penalty(critic, real, fake, alpha).detach().double()
    assert_matches(penalty.detach(), expected, 5e-2)


def test_channels_last_samples():
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(144, 1)).double()
    real, fake, alpha = data((4, 3, 8, 8))
    channels_last = real.contiguous(memory_format=torch.channels_last)
    expected = reference.gradient_penalty(critic, real, fake, alpha)
    ours = wgan_fast.gradient_penalty(critic, channels_last, fake, alpha=alpha)
    assert_same(ours, expected, critic)


def test_clip_weights_leaves_buffers_alone():
    critic = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))
    nn.init.constant_(critic[1].running_var, 7.0)
    expected = {k: v.clamp(-0.05, 0.05).clone() for k, v in critic.named_parameters()}
    wgan_fast.clip_weights_(critic, 0.05)
    for name, parameter in critic.named_parameters():
        assert torch.equal(parameter, expected[name])
    assert torch.equal(critic[1].running_var, torch.full((5,), 7.0))
    for given in (critic[0].weight, list(critic.parameters()), critic.parameters()):
        wgan_fast.clip_weights_(given, 0.01)
    assert max(p.abs().max() for p in critic.parameters()) == torch.tensor(0.01)


def test_a_penalty_can_be_trained_on():
    torch.manual_seed(3)
    critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(200):
        real, fake = torch.randn(2, 64, 2)
        optimizer.zero_grad()
        wgan_fast.gradient_penalty(critic, real, fake).backward()
        optimizer.step()
    norms = wgan_fast.gradient_norms(critic, torch.randn(256, 2))
    assert norms.mean().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.cuda
def test_on_cuda():
    critic, (real, fake, alpha) = critic_for((6, 3, 8, 8)), data((6, 3, 8, 8))
    expected = reference.critic_loss(critic, real, fake, alpha)
    wanted = gradients(expected, critic)
    critic = critic.cuda()
    real, fake, alpha = real.cuda(), fake.cuda(), alpha.cuda()
    loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha)
    assert_matches(loss.detach().cpu(), expected.detach(), 1e-10)
    for mine, other in zip(gradients(loss, critic), wanted, strict=True):
        assert_matches(mine.cpu(), other, 1e-10)
    wgan_fast.clip_weights_(critic, 0.01)
    assert max(p.abs().max() for p in critic.parameters()) <= 0.01
