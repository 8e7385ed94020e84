"""The papers' optimisers."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from wgan_fast.training.config import TrainConfig


def build_optimizers(
    config: TrainConfig, generator: nn.Module, critic: nn.Module
) -> tuple[Optimizer, Optimizer]:
    """(the generator's, the critic's), each updating its module in one fused kernel."""
    return (
        _optimizer(config, generator.parameters(), config.generator_learning_rate),
        _optimizer(config, critic.parameters(), config.critic_learning_rate),
    )


def _optimizer(
    config: TrainConfig, parameters: Iterable[nn.Parameter], learning_rate: float
) -> Optimizer:
    parameters = list(parameters)
    # What a CUDA graph captures must keep its step counts on the device.
    capturable = parameters[0].device.type == "cuda"
    if config.takes_rmsprop:
        # Without momentum: the critic's loss is not stationary, and momentum hurts (1701.07875).
        return torch.optim.RMSprop(parameters, lr=learning_rate, capturable=capturable)
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(
        parameters, lr=learning_rate, betas=betas, fused=True, capturable=capturable
    )
