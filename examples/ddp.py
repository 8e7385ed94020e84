"""A WGAN-GP in two processes, by DistributedDataParallel around the loss instead of the critic.

    torchrun --nproc-per-node 2 examples/ddp.py

The loss is one module with one ordinary backward, whose gradients DDP averages, the penalty's
among them. The first process trains alone on the whole batches beside it, for comparison.
"""

import argparse

import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group, which its functions would keep as a default
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import wgan_fast

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=200, help="critic steps")
parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
arguments = parser.parse_args()
STEPS, N_CRITIC = 10 if arguments.smoke else arguments.steps, 5

dist.init_process_group("gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # so that the comparison is one
BATCH, LATENT = 32 * world_size, 8


def make_models():
    """The same in every process."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(LATENT, 32), nn.ReLU(), nn.Linear(32, 2))
    critic = nn.Sequential(
        nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
    )
    return generator, critic


def train(generator, critic, share, wrap):
    """The loop as it was; ``share`` is this process's part of each batch."""
    critic_loss = wrap(wgan_fast.CriticLoss(critic, weight=10.0))
    wrapped_generator = wrap(generator)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.9))
    draw = torch.Generator().manual_seed(1)  # whole batches, so that the number of processes
    for step in range(STEPS):  # changes nothing; a real loader has a DistributedSampler
        real = 1 + 0.3 * torch.randn(BATCH, 2, generator=draw)[share]
        z = torch.randn(BATCH, LATENT, generator=draw)[share]
        alpha = torch.rand(BATCH, generator=draw)[share]
        with torch.no_grad():
            fake = generator(z)
        # was: ddp_critic(fake).mean() - ddp_critic(real).mean() + 10 * penalty(ddp_critic, ...)
        loss = critic_loss(real, fake, alpha)
        critic_optimizer.zero_grad()
        loss.backward()
        critic_optimizer.step()
        if (step + 1) % N_CRITIC == 0:
            z = torch.randn(BATCH, LATENT, generator=draw)[share]
            generator_optimizer.zero_grad()
            wgan_fast.generator_loss(critic, wrapped_generator(z)).backward()
            generator_optimizer.step()


generator, critic = make_models()
mine = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
train(generator, critic, mine, wrap=DistributedDataParallel)

if rank == 0:
    alone_generator, alone_critic = make_models()
    train(alone_generator, alone_critic, slice(None), wrap=lambda module: module)
    together = [*generator.parameters(), *critic.parameters()]
    alone = [*alone_generator.parameters(), *alone_critic.parameters()]
    pairs = zip(together, alone, strict=True)
    difference = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
    print(f"weights, {world_size} processes next to one: {difference:.1e} apart at most")
# Waits for gloo's threads, as nothing holds the group any more. One that is late would need the
# interpreter to let go of a gradient's work, and abort the process while that exits.
dist.destroy_process_group()
