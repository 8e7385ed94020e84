"""The critics that are measured, from people's own problems: toy, table, image, signal."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.networks import (
    ResNetCritic,
    SelfAttentionCritic,
    SignalCritic,
    group_norm,
    instance_norm,
    layer_norm,
)
from wgan_fast.models import DCGANCritic, MLPCritic


class Problem(NamedTuple):
    """A critic and one batch for it, on one device."""

    critic: nn.Module
    real: Tensor
    fake: Tensor
    alpha: Tensor


class Critic(NamedTuple):
    """How to make a problem; ``name`` and ``sizes`` go into the table."""

    name: str
    sizes: str
    batch: int
    sample_shape: tuple[int, ...]
    make: Callable[[], nn.Module]

    def problem(self, device: torch.device) -> Problem:
        """The same numbers in every call and on every device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            critic = self.make().to(device)
            shape = (self.batch, *self.sample_shape)
            real, fake = torch.rand(shape) * 2 - 1, torch.randn(shape).tanh()
            alpha = torch.rand(self.batch)
        return Problem(critic, real.to(device), fake.to(device), alpha.to(device))


_COLOUR = (3, 32, 32)

MLPS = (
    Critic("toy-mlp", "MLP 2-128×3-1, B 64", 64, (2,), lambda: MLPCritic(2, 128, 3)),
    Critic("tabular-mlp", "MLP 100-256×3-1, B 500", 500, (100,), lambda: MLPCritic(100, 256, 3)),
    Critic("mlp-784", "MLP 784-512×3-1, B 256", 256, (784,), lambda: MLPCritic(784, 512, 3)),
)
DCGANS = (
    Critic(
        "dcgan-32",
        "DCGAN critic, 32 channels, 1×32×32, B 64",
        64,
        (1, 32, 32),
        lambda: DCGANCritic(32, channels=32, image_channels=1),
    ),
    Critic(
        "dcgan-64",
        "DCGAN critic, 64 channels, 3×32×32, B 64",
        64,
        _COLOUR,
        lambda: DCGANCritic(32, channels=64, image_channels=3),
    ),
)
RESNETS = tuple(
    Critic(
        f"resnet-{norm.__name__.removesuffix('_norm')}",
        f"ResNet critic with {spelled}, 32 channels, 3×32×32, B 32",
        32,
        _COLOUR,
        partial(ResNetCritic, norm),
    )
    for norm, spelled in (
        (layer_norm, "LayerNorm"),
        (instance_norm, "InstanceNorm"),
        (group_norm, "GroupNorm"),
    )
)
OTHERS = (
    Critic(
        "attention",
        "self-attention critic, 32 channels, 3×32×32, B 64",
        64,
        _COLOUR,
        SelfAttentionCritic,
    ),
    Critic("signals", "Conv1d critic, 3 layers, 4×128, B 64", 64, (4, 128), SignalCritic),
)
CRITICS = (*MLPS, *DCGANS, *RESNETS, *OTHERS)
