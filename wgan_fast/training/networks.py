"""The generator and the critic that a config describes."""

import torch
from torch import nn

from wgan_fast.models import DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator
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
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        if config.is_2d:
            generator = MLPGenerator(config.latent_dim, 2, config.hidden_dim)
            critic = MLPCritic(2, config.hidden_dim)
        else:
            generator = DCGANGenerator(
                config.image_size,
                latent_dim=config.latent_dim,
                channels=config.channels,
                image_channels=1,
            )
            critic = DCGANCritic(
                config.image_size,
                channels=config.channels,
                image_channels=1,
                normalisation=config.normalisation,
            )
    return generator.to(device, dtype), critic.to(device, dtype)
