"""The steps of a training loop's optimisers, on gradients that are there already."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wgan_fast import optimizer_step


def update(
    optimizer: Optimizer, parameters: Iterable[nn.Parameter], gradients: Sequence[Tensor | None]
) -> None:
    """One step on these gradients, which stay on the parameters."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer_step.take(optimizer)
    # Autocast keeps narrow copies of weights until its context ends; the whole loop may lie in one.
    torch.clear_autocast_cache()


def hyperparameters(*optimizers: Optimizer) -> list[Any]:
    """What a captured step has of its optimiser: numbers by value, tensors by where they lie."""
    return [
        value if not isinstance(value, Tensor) else id(value)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for name, value in group.items()
        if name != "params"
    ]
