"""A WGAN-GP in float16 with GradScaler; the scaled penalty needs no recipe of its own.

    python examples/float16.py

With a double backward the penalty's gradients must be taken of a scaled score and unscaled by hand
before the norm. Here the loss is scaled as any other.
"""

import argparse

import torch
from torch import nn

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=1000, help="critic steps")
parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
arguments = parser.parse_args()

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH, LATENT, N_CRITIC = 64, 8, 5


def train(dtype, steps):
    """From the same seed in float16 or in float32; the critic's losses and the scaler."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(LATENT, 128), nn.SiLU(), nn.Linear(128, 2)).to(DEVICE)
    critic = nn.Sequential(
        nn.Linear(2, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1)
    ).to(DEVICE)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.9))
    narrow = dtype == torch.float16
    scaler = torch.amp.GradScaler(DEVICE, enabled=narrow)
    autocast = torch.autocast(DEVICE, dtype, enabled=narrow)
    losses = []
    for step in range(steps):
        real = torch.randn(BATCH, 2, device=DEVICE) * 0.3 + 1
        with autocast:
            fake = generator(torch.randn(BATCH, LATENT, device=DEVICE)).detach().float()
            # was: a scaled autograd.grad, divided by scaler.get_scale(), then its norm, ...
            loss = wgan_fast.critic_loss(critic, real, fake, weight=10.0)
        critic_optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(critic_optimizer)
        losses.append(loss.item())
        if (step + 1) % N_CRITIC == 0:
            with autocast:
                z = torch.randn(BATCH, LATENT, device=DEVICE)
                generator_loss = wgan_fast.generator_loss(critic, generator(z))
            generator_optimizer.zero_grad()
            scaler.scale(generator_loss).backward()
            scaler.step(generator_optimizer)
        scaler.update()
    return torch.tensor(losses), scaler


few = 20
(narrow, scaler), (wide, _) = train(torch.float16, few), train(torch.float32, few)
difference = ((narrow - wide).abs() / wide.abs().max()).max().item()
print(f"critic losses of {few} steps, float16 next to float32: {difference:.1e} apart at most")
if not arguments.smoke:
    losses, scaler = train(torch.float16, arguments.steps)
    print(f"after {arguments.steps} steps: critic loss {losses[-50:].mean():.3f}")
    print(f"loss scale {scaler.get_scale():.0f}")
