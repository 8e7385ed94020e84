"""The oracle against what can be worked out by hand, and against finite differences."""

import math

import pytest
import torch
from torch import nn

from wgan_fast import reference


def linear_critic(weights):
    return lambda x: x.flatten(1) @ weights


@pytest.fixture
def samples():
    return torch.randn(2, 6, 3, 4, dtype=torch.float64)


@pytest.fixture
def alpha():
    return torch.rand(6, dtype=torch.float64)


def test_interpolates_lie_on_the_line_one_alpha_per_sample(samples, alpha):
    real, fake = samples
    x = reference.interpolate(real, fake, alpha)
    for i in range(6):
        torch.testing.assert_close(x[i], fake[i] + alpha[i] * (real[i] - fake[i]))


def test_linear_critic_has_its_weights_norm_everywhere(samples, alpha):
    weights = torch.randn(12, dtype=torch.float64, requires_grad=True)
    norm = weights.detach().norm()
    norms = reference.gradient_norms(linear_critic(weights), samples[0].requires_grad_())
    torch.testing.assert_close(norms, norm.expand(6), check_dtype=True, rtol=1e-12, atol=0)

    real, fake = samples.detach()
    for target in (0.0, 1.0, 2.5):
        penalty = reference.gradient_penalty(linear_critic(weights), real, fake, alpha, target)
        torch.testing.assert_close(penalty, (norm - target) ** 2, rtol=1e-12, atol=0)
        # ∂(‖w‖ − t)²/∂w = 2 (‖w‖ − t) w / ‖w‖
        (gradient,) = torch.autograd.grad(penalty, weights)
        torch.testing.assert_close(gradient, 2 * (norm - target) * weights.detach() / norm)


def test_one_sided_punishes_only_the_steep(samples, alpha):
    weights = torch.randn(12, dtype=torch.float64)
    norm = weights.norm().item()
    critic = linear_critic(weights)
    for target, expected in ((norm + 0.5, 0.0), (norm - 0.5, 0.25)):
        penalty = reference.gradient_penalty(critic, *samples, alpha, target, "one")
        assert penalty.item() == pytest.approx(expected, abs=1e-12)


def test_w1_of_two_point_masses():
    """W₁(δ₀, δ_θ) = |θ|: f(x) = −sign(θ) x is 1-Lipschitz, free of penalty, and attains it."""
    for theta in (0.7, -2.0):
        real = torch.zeros(4, 1, dtype=torch.float64)
        fake = torch.full((4, 1), theta, dtype=torch.float64)
        slope = torch.tensor([-math.copysign(1, theta)], dtype=torch.float64)
        alpha = torch.rand(4, dtype=torch.float64)
        loss = reference.critic_loss(linear_critic(slope), real, fake, alpha, weight=10.0)
        assert -loss.item() == pytest.approx(abs(theta), rel=1e-12)


def test_a_trained_critic_finds_w1_of_two_point_masses():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1)).double()
    optimizer = torch.optim.Adam(critic.parameters(), 0.02, betas=(0.0, 0.9))
    real = torch.zeros(32, 1, dtype=torch.float64)
    for step in range(300):
        # In one dimension the penalty walls off slope 0: the first steps go downhill without it.
        loss = reference.wgan_gp_critic_step(
            lambda z: torch.full_like(z, 1.5), critic, optimizer, real, real,
            torch.rand(32, dtype=torch.float64), weight=10.0 if step >= 20 else 0.0,
        )  # fmt: skip
    # The penalty lets the slope exceed 1 by θ / 2λ: the loss is θ + θ² / 4λ.
    assert -loss.item() == pytest.approx(1.5 + 1.5**2 / 40, rel=0.02)


def smooth_critic():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.SiLU(), nn.Linear(3, 1))


def test_losses_pass_gradcheck_and_gradgradcheck():
    critic = smooth_critic().double()
    names = [name for name, _ in critic.named_parameters()]
    parameters = [p.detach().requires_grad_() for p in critic.parameters()]
    real, fake = torch.randn(2, 3, 4, dtype=torch.float64)
    alpha = torch.rand(3, dtype=torch.float64)

    def loss(*values, sided="two"):
        def score(x):
            return torch.func.functional_call(critic, dict(zip(names, values, strict=True)), x)

        return reference.critic_loss(score, real, fake, alpha, sided=sided, drift=0.1)

    assert torch.autograd.gradcheck(loss, parameters)
    assert torch.autograd.gradgradcheck(loss, parameters)
    assert torch.autograd.gradcheck(lambda *values: loss(*values, sided="one"), parameters)


def test_zero_gradient_has_gradient_zero(samples, alpha):
    weights = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    reference.gradient_penalty(linear_critic(weights), *samples, alpha).backward()
    assert torch.equal(weights.grad, torch.zeros_like(weights))


def test_generator_loss_and_clipping(samples):
    weights = torch.randn(12, dtype=torch.float64)
    expected = -sum((x.flatten() * weights).sum() for x in samples[1]) / 6
    loss = reference.generator_loss(linear_critic(weights), samples[1])
    torch.testing.assert_close(loss, expected)
    parameters = [torch.tensor([-3.0, 0.2, 9.0], requires_grad=True), torch.tensor([[0.4]])]
    reference.clip_weights_(parameters, 0.3)
    torch.testing.assert_close(parameters[0].detach(), torch.tensor([-0.3, 0.2, 0.3]))
    torch.testing.assert_close(parameters[1], torch.tensor([[0.3]]))


def test_textbook_steps_descend_and_clip():
    generator, critic = nn.Linear(3, 4).double(), smooth_critic().double()
    real, z = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 3, dtype=torch.float64)
    alpha = torch.rand(8, dtype=torch.float64)
    fake = generator(z).detach()

    optimizer = torch.optim.SGD(critic.parameters(), 1e-3)
    before = reference.critic_loss(critic, real, fake, alpha)
    seen = reference.wgan_gp_critic_step(generator, critic, optimizer, real, z, alpha)
    torch.testing.assert_close(seen, before.detach())
    assert reference.critic_loss(critic, real, fake, alpha) < before
    assert all(p.grad is None for p in generator.parameters())

    generator_optimizer = torch.optim.SGD(generator.parameters(), 1e-3)
    seen = reference.wgan_generator_step(generator, critic, generator_optimizer, z)
    torch.testing.assert_close(seen, -critic(fake).mean().detach())
    assert -critic(generator(z)).mean() < seen

    rmsprop = torch.optim.RMSprop(critic.parameters(), 5e-5)
    reference.wgan_critic_step(generator, critic, rmsprop, real, z, clip_value=0.01)
    assert max(p.abs().max() for p in critic.parameters()) <= 0.01
