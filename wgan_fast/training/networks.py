"""The generator and the critic that a config describes."""

from typing import Any

import torch
from torch import nn

from wgan_fast.models import (
    DCGANCritic,
    DCGANGenerator,
    GroupSortConvCritic,
    GroupSortMLPCritic,
    InpaintingCritic,
    InpaintingGenerator,
    LabelledCritic,
    LabelledGenerator,
    MLPCritic,
    MLPGenerator,
    MultiScaleCritic,
    PackedCritic,
    PairCritic,
    PairGenerator,
    PatchCritic,
)
from wgan_fast.models.spectral import Lipschitz
from wgan_fast.training.choices import CLASSES
from wgan_fast.training.config import TrainConfig

_LABEL_DIM = CLASSES


def build_networks(
    config: TrainConfig, device: torch.device, dtype: torch.dtype
) -> tuple[nn.Module, nn.Module]:
    """(generator, critic), initialised from the config's seed alone.

    The parameters are drawn on the CPU in float32, so they are the same on every device and in
    every dtype, and the caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        generator, critic = _of_points(config) if config.is_2d else _of_images(config)
        if config.pac > 1:
            critic = PackedCritic(critic, config.pac)
        if config.conditional:
            generator = LabelledGenerator(generator, CLASSES, _LABEL_DIM)
            critic = LabelledCritic(critic, CLASSES, config.image_size)
        if config.inpaint:
            critic = InpaintingCritic(critic)
        if config.pairs != "none":
            generator = PairGenerator(generator, config.latent_dim, CLASSES)
            critic = PairCritic(critic, CLASSES, config.image_size, _constraint(config))
        if config.lipschitz == "ortho":
            critic.apply(_start_orthogonal)
    return generator.to(device, dtype), critic.to(device, dtype)


def _of_points(config: TrainConfig) -> tuple[nn.Module, nn.Module]:
    generator = MLPGenerator(config.latent_dim, 2, config.hidden_dim)
    numbers = 2 * config.pac
    if config.lipschitz == "groupsort":
        return generator, GroupSortMLPCritic(numbers, config.hidden_dim)
    return generator, MLPCritic(numbers, config.hidden_dim, lipschitz=_constraint(config))


def _of_images(config: TrainConfig) -> tuple[nn.Module, nn.Module]:
    size: dict[str, Any] = {"channels": config.channels, "image_channels": 1}
    beside_z = _LABEL_DIM if config.conditional or config.pairs != "none" else 0
    kind = InpaintingGenerator if config.inpaint else DCGANGenerator
    generator = kind(config.image_size, latent_dim=config.latent_dim + beside_z, **size)
    # Beside the image: its label's image, or the image with a hole and where that is.
    beside_image = 2 if config.inpaint else 1 if beside_z else 0
    size["image_channels"] = config.pac * (1 + beside_image)
    if config.lipschitz == "groupsort":
        return generator, GroupSortConvCritic(config.image_size, **size)
    bounds: dict[str, Any] = {
        "normalisation": config.normalisation, "lipschitz": _constraint(config),
    }  # fmt: skip
    if config.critic_scores == "patch":
        return generator, PatchCritic(**size, **bounds)
    if config.critic_scores == "multi-scale":
        return generator, MultiScaleCritic(**size, **bounds)
    return generator, DCGANCritic(config.image_size, **size, **bounds)


def _constraint(config: TrainConfig) -> Lipschitz:
    return "spectral" if config.lipschitz == "sn" else "none"


def _start_orthogonal(module: nn.Module) -> None:
    """Where the regulariser pulls to, as in its paper (Brock et al., 2017, arXiv 1609.07093)."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.orthogonal_(module.weight)
