"""A WGAN-GP on signals, (B, channels, time): damped oscillations, by one-dimensional convolutions.

    python examples/signals.py

Writes signals.png.
"""

import argparse

import torch
from torch import nn

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=2000, help="generator steps")
parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
arguments = parser.parse_args()

BATCH, LATENT, N_CRITIC, WEIGHT, LENGTH = 64, 16, 3, 10.0, 64


def draw_real(count):
    """Two channels: an oscillation of random frequency, phase and decay, and its derivative."""
    frequency, phase, decay = 3 + 3 * torch.rand(count, 1), 6.283 * torch.rand(count, 1), 2.0
    time = torch.linspace(0, 1, LENGTH)
    envelope = torch.exp(-decay * time)
    angle = 6.283 * frequency * time + phase
    return torch.stack([envelope * angle.sin(), envelope * angle.cos()], dim=1)


def make_generator():
    """From z to a signal: transposed convolutions."""
    return nn.Sequential(
        nn.Linear(LATENT, 64 * 8), nn.Unflatten(1, (64, 8)), nn.ReLU(),
        nn.ConvTranspose1d(64, 32, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose1d(32, 32, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose1d(32, 2, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def make_critic():
    """From a signal to a score: strided convolutions."""
    return nn.Sequential(
        nn.Conv1d(2, 32, 5, 2, 2), nn.LeakyReLU(0.2), nn.Conv1d(32, 64, 5, 2, 2), nn.LeakyReLU(0.2),
        nn.Conv1d(64, 64, 5, 2, 2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64 * 8, 1),
    )  # fmt: skip


def textbook_penalty(critic, real, fake):
    """The norm runs over channels and time together; one alpha per signal."""
    alpha = torch.rand(len(real), 1, 1)
    interpolates = (alpha * real + (1 - alpha) * fake).requires_grad_()
    (gradients,) = torch.autograd.grad(critic(interpolates).sum(), interpolates, create_graph=True)
    return ((gradients.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def train(compute_penalty, steps):
    """Always from the same seed."""
    torch.manual_seed(0)
    generator, critic = make_generator(), make_critic()
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=5e-4, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=5e-4, betas=(0.0, 0.9))
    losses = []
    for step in range(steps):
        for _ in range(N_CRITIC):
            real, fake = draw_real(BATCH), generator(torch.randn(BATCH, LATENT)).detach()
            penalty = compute_penalty(critic, real, fake)  # <- the line
            loss = critic(fake).mean() - critic(real).mean() + WEIGHT * penalty
            critic_optimizer.zero_grad()
            loss.backward()
            critic_optimizer.step()
            losses.append(loss.item())
        generator_loss = -critic(generator(torch.randn(BATCH, LATENT))).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}: critic loss {sum(losses[-100:]) / 100:.3f}")
    return generator, torch.tensor(losses)


def picture(generator):
    """First channel of some real and some generated signals."""
    import matplotlib.pyplot as plt

    with torch.no_grad():
        fake = generator(torch.randn(6, LATENT))
    figure, rows = plt.subplots(2, 6, figsize=(12, 3.5), sharex=True, sharey=True)
    for axes, signals, name in zip(rows, (draw_real(6), fake), ("real", "fake"), strict=True):
        axes[0].set_ylabel(name)
        for axis, signal in zip(axes, signals, strict=True):
            axis.plot(signal[0])
    figure.tight_layout()
    figure.savefig("signals.png", dpi=100)


torch.set_default_dtype(torch.float64)  # Adam makes much of a rounding within a few steps
_, theirs = train(textbook_penalty, 3)  # what it was
_, ours = train(wgan_fast.gradient_penalty, 3)  # what it is
difference = ((ours - theirs).abs() / theirs.abs().max()).max().item()
print(f"critic losses, wgan_fast next to the textbook: {difference:.1e} apart at most")
torch.set_default_dtype(torch.float32)
picture(train(wgan_fast.gradient_penalty, 3 if arguments.smoke else arguments.steps)[0])
