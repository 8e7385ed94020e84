"""An LSTM critic on sequences, (B, time, features): cuDNN's LSTM has no double backward.

    python examples/lstm_critic.py

``backend="first_order"`` takes the penalty's gradient by a central difference of first derivatives,
approximately, on any device and through any kernel.
"""

import argparse

import torch
from torch import nn

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=500, help="generator steps")
parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
arguments = parser.parse_args()

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, TIME, LATENT, N_CRITIC, WEIGHT = 32, 12, 4, 2, 10.0


class Critic(nn.Module):
    """A sequence to a score."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 32, batch_first=True)
        self.last = nn.Linear(32, 1)

    def forward(self, x):
        return self.last(self.lstm(x)[0][:, -1])


class Generator(nn.Module):
    """Noise at each time to a sequence."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(LATENT, 32, batch_first=True)
        self.last = nn.Linear(32, 2)

    def forward(self, z):
        return self.last(self.lstm(z)[0])


def draw_real():
    """Points that walk around a circle, each from its own place."""
    start, time = 6.283 * torch.rand(BATCH, 1), torch.arange(TIME) * 0.5
    return torch.stack([(start + time).sin(), (start + time).cos()], dim=2).to(DEVICE)


def textbook_penalty(critic, real, fake, alpha):
    """The double backward, on a GPU with cuDNN off."""
    alpha = alpha.reshape(-1, 1, 1)
    interpolates = (alpha * real + (1 - alpha) * fake).requires_grad_()
    with torch.backends.cudnn.flags(enabled=False):
        scores = critic(interpolates)
    (gradients,) = torch.autograd.grad(scores.sum(), interpolates, create_graph=True)
    return ((gradients.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


torch.manual_seed(0)
generator, critic = Generator().to(DEVICE), Critic().to(DEVICE)

# How good is the approximation? The penalty's gradient both ways, at the same points.
real, fake = draw_real(), generator(torch.randn(BATCH, TIME, LATENT, device=DEVICE)).detach()
alpha, parameters = torch.rand(BATCH, device=DEVICE), list(critic.parameters())
exact = textbook_penalty(critic, real, fake, alpha)
near = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, backend="first_order")
exact, near = (
    torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters, materialize_grads=True)])
    for value in (exact, near)
)
error = ((near - exact).norm() / exact.norm()).item()
print(f"penalty's gradient, first_order next to the double backward: {error:.1e} of its norm apart")

critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.9))
for step in range(3 if arguments.smoke else arguments.steps):
    for _ in range(N_CRITIC):
        real, fake = draw_real(), generator(torch.randn(BATCH, TIME, LATENT, device=DEVICE))
        # was: critic(fake).mean() - critic(real).mean() + 10 * textbook_penalty(...)
        loss = wgan_fast.critic_loss(
            critic, real, fake.detach(), weight=WEIGHT, backend="first_order"
        )
        critic_optimizer.zero_grad()
        loss.backward()
        critic_optimizer.step()
    fake = generator(torch.randn(BATCH, TIME, LATENT, device=DEVICE))
    generator_loss = wgan_fast.generator_loss(critic, fake)
    generator_optimizer.zero_grad()
    generator_loss.backward()
    generator_optimizer.step()
    if (step + 1) % 100 == 0:
        print(f"step {step + 1}: critic loss {loss.item():.3f}")
radius = fake.detach().norm(dim=2)
print(f"generated points: radius {radius.mean():.2f} ± {radius.std():.2f}; the real ones' is 1")
