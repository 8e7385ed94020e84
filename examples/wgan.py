"""The textbook WGAN (Arjovsky et al., 2017, arXiv 1701.07875) with one line changed.

    python examples/wgan.py

The line is the clipping: one call for all tensors instead of one ``clamp_`` for each. On eight
Gaussians.
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

BATCH, LATENT, N_CRITIC, CLIP_VALUE = 64, 8, 5, 0.05
ANGLES = torch.arange(8) * (math.pi / 4)
CENTRES = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)


def draw_real():
    """Points around eight centres on a circle."""
    return CENTRES[torch.randint(8, (BATCH,))] + 0.02 * torch.randn(BATCH, 2)


def mlp(inputs, outputs):
    """Three hidden layers of ReLUs."""
    layers = [nn.Linear(inputs, 128), nn.ReLU()]
    layers += [nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, outputs))


def textbook_clip_weights_(parameters, clip_value):
    """What the tutorials have."""
    for parameter in parameters:
        parameter.data.clamp_(-clip_value, clip_value)


def train(clip_weights_, steps):
    """Algorithm 1 of the paper, always from the same seed."""
    torch.manual_seed(0)
    generator, critic = mlp(LATENT, 2), mlp(2, 1)
    critic_optimizer = torch.optim.RMSprop(critic.parameters(), lr=5e-5)
    generator_optimizer = torch.optim.RMSprop(generator.parameters(), lr=5e-5)
    losses = []
    for step in range(steps):
        for _ in range(N_CRITIC):
            real, fake = draw_real(), generator(torch.randn(BATCH, LATENT)).detach()
            critic_loss = critic(fake).mean() - critic(real).mean()
            critic_optimizer.zero_grad()
            critic_loss.backward()
            critic_optimizer.step()
            # was: for parameter in critic.parameters(): parameter.data.clamp_(-c, c)
            clip_weights_(critic.parameters(), CLIP_VALUE)
            losses.append(critic_loss.item())
        generator_loss = -critic(generator(torch.randn(BATCH, LATENT))).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}: Wasserstein estimate {-sum(losses[-100:]) / 100:.6f}")
    return generator, torch.tensor(losses)


def distance(generator):
    """How far a sample is from the nearest centre, on average."""
    with torch.no_grad():
        return torch.cdist(generator(torch.randn(2000, LATENT)), CENTRES).amin(1).mean().item()


few = 10
_, theirs = train(textbook_clip_weights_, few)
generator, ours = train(wgan_fast.clip_weights_, few)
difference = ((ours - theirs).abs() / theirs.abs()).max().item()
print(f"critic losses, wgan_fast next to the textbook: {difference:.1e} apart at most")

if not arguments.smoke:
    print(f"distance to the nearest centre: {distance(generator):.3f} before training")
    generator, _ = train(wgan_fast.clip_weights_, arguments.steps)
    print(f"distance to the nearest centre: {distance(generator):.3f} after")
