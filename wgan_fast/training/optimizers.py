"""The papers' optimisers."""

import torch
from torch import nn
from torch.optim import Optimizer

from wgan_fast.optim import RMSprop
from wgan_fast.training.config import TrainConfig


def build_optimizers(
    config: TrainConfig, generator: nn.Module, critic: nn.Module
) -> tuple[Optimizer, Optimizer]:
    """(the generator's, the critic's), each updating its module in one fused kernel."""
    if config.takes_rmsprop:
        clip_value = config.clip_value if config.clips else None
        return (
            _rmsprop(generator, config.generator_learning_rate),
            _rmsprop(critic, config.critic_learning_rate, clip_value),
        )
    return (
        _adam(generator, config.generator_learning_rate, (config.beta1, config.beta2)),
        _adam(critic, config.critic_learning_rate, (config.beta1, config.beta2)),
    )


def _rmsprop(module: nn.Module, learning_rate: float, clip_value: float | None = None) -> Optimizer:
    # Without momentum: the critic's loss is not stationary, and momentum hurts (1701.07875).
    return RMSprop(
        module.parameters(),
        lr=learning_rate,
        capturable=_is_on_gpu(module),
        clip_value=clip_value,
    )


def _adam(module: nn.Module, learning_rate: float, betas: tuple[float, float]) -> Optimizer:
    return torch.optim.Adam(
        module.parameters(),
        lr=learning_rate,
        betas=betas,
        fused=True,
        capturable=_is_on_gpu(module),
    )


def _is_on_gpu(module: nn.Module) -> bool:
    """Then a CUDA graph captures the step, and must find the step counts on the device."""
    return next(module.parameters()).device.type == "cuda"
