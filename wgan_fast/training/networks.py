"""The generator and the critic that a config describes."""

import torch
from torch import nn

from wgan_fast.models import (
    DCGANCritic,
    DCGANGenerator,
    GroupSortConvCritic,
    GroupSortMLPCritic,
    MLPCritic,
    MLPGenerator,
)
from wgan_fast.models.spectral import Lipschitz
from wgan_fast.training.config import TrainConfig


def build_networks(
    config: TrainConfig, device: torch.device, dtype: torch.dtype
) -> tuple[nn.Module, nn.Module]:
    """(generator, critic), initialised from the config's seed alone.

    The parameters are drawn on the CPU in float32, so they are the same on every device and in
    every dtype, and the caller's random state is left as it was.
    """
    generator: nn.Module
    critic: nn.Module
    constraint: Lipschitz = "spectral" if config.lipschitz == "sn" else "none"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        if config.is_2d:
            generator = MLPGenerator(config.latent_dim, 2, config.hidden_dim)
            if config.lipschitz == "groupsort":
                critic = GroupSortMLPCritic(2, config.hidden_dim)
            else:
                critic = MLPCritic(2, config.hidden_dim, lipschitz=constraint)
        else:
            generator = DCGANGenerator(
                config.image_size,
                latent_dim=config.latent_dim,
                channels=config.channels,
                image_channels=1,
            )
            size = {"channels": config.channels, "image_channels": 1}
            if config.lipschitz == "groupsort":
                critic = GroupSortConvCritic(config.image_size, **size)
            else:
                critic = DCGANCritic(
                    config.image_size,
                    normalisation=config.normalisation,
                    lipschitz=constraint,
                    **size,
                )
        if config.lipschitz == "ortho":
            critic.apply(_start_orthogonal)
    return generator.to(device, dtype), critic.to(device, dtype)


def _start_orthogonal(module: nn.Module) -> None:
    """Where the regulariser pulls to, as in its paper (Brock et al., 2017, arXiv 1609.07093)."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.orthogonal_(module.weight)
