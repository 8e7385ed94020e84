"""The textbook WGAN-GP (Gulrajani et al., 2017, arXiv 1704.00028) with one line changed.

    python examples/wgan_gp.py

The line is the penalty, or the whole critic loss, which is faster still. On eight Gaussians; writes
wgan_gp.png.
"""

import argparse
import math

import torch
from torch import nn

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=2000, help="generator steps")
parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
arguments = parser.parse_args()

BATCH, LATENT, N_CRITIC, WEIGHT = 64, 8, 5, 0.1


def draw_real(count):
    """Points around eight centres on a circle."""
    angles = torch.randint(8, (count,)) * (math.pi / 4)
    return torch.stack([angles.cos(), angles.sin()], dim=1) + 0.02 * torch.randn(count, 2)


def mlp(inputs, outputs):
    """Three hidden layers of ReLUs."""
    layers = [nn.Linear(inputs, 128), nn.ReLU()]
    layers += [nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, outputs))


def compute_gradient_penalty(critic, real, fake):
    """What the tutorials have: a double backward."""
    alpha = torch.rand(real.shape[0], 1)
    interpolates = (alpha * real + (1 - alpha) * fake).requires_grad_()
    scores = critic(interpolates)
    ones = torch.ones_like(scores)
    (gradients,) = torch.autograd.grad(scores, interpolates, ones, create_graph=True)
    return ((gradients.norm(2, dim=1) - 1) ** 2).mean()


def textbook(critic, real, fake):
    """The critic's loss as it was."""
    penalty = compute_gradient_penalty(critic, real, fake)
    return critic(fake).mean() - critic(real).mean() + WEIGHT * penalty


def one_line(critic, real, fake):
    """The same with the penalty replaced."""
    # was: compute_gradient_penalty(critic, real, fake)
    penalty = wgan_fast.gradient_penalty(critic, real, fake)
    return critic(fake).mean() - critic(real).mean() + WEIGHT * penalty


def whole_loss(critic, real, fake):
    """The same with the loss replaced: all samples go through the critic as one batch."""
    return wgan_fast.critic_loss(critic, real, fake, weight=WEIGHT)


def train(compute_loss, steps):
    """Algorithm 1 of the paper, always from the same seed."""
    torch.manual_seed(0)
    generator, critic = mlp(LATENT, 2), mlp(2, 1)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=3e-4, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=3e-4, betas=(0.0, 0.9))
    losses = []
    for step in range(steps):
        for _ in range(N_CRITIC):
            real, fake = draw_real(BATCH), generator(torch.randn(BATCH, LATENT)).detach()
            loss = compute_loss(critic, real, fake)
            critic_optimizer.zero_grad()
            loss.backward()
            critic_optimizer.step()
            losses.append(loss.item())
        generator_loss = -critic(generator(torch.randn(BATCH, LATENT))).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}: critic loss {sum(losses[-100:]) / 100:.4f}")
    return generator, torch.tensor(losses)


def picture(generator):
    """Real and generated points."""
    import matplotlib.pyplot as plt

    with torch.no_grad():
        fake = generator(torch.randn(1000, LATENT))
    plt.figure(figsize=(4, 4))
    plt.scatter(*draw_real(1000).T, s=4, label="real")
    plt.scatter(*fake.T, s=4, alpha=0.5, label="fake")
    plt.legend(loc="center")
    plt.savefig("wgan_gp.png", dpi=100)


few = 10
torch.set_default_dtype(torch.float64)  # Adam makes much of a rounding within a few steps
_, theirs = train(textbook, few)
for change in (one_line, whole_loss):
    _, ours = train(change, few)
    difference = ((ours - theirs).abs() / theirs.abs().max()).max().item()
    print(f"critic losses, {change.__name__} next to the textbook: {difference:.1e} apart at most")

torch.set_default_dtype(torch.float32)
generator, _ = train(whole_loss, few if arguments.smoke else arguments.steps)
picture(generator)
