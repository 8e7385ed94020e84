"""The clipping of a training loop: by the loop, or by the critic's optimiser in its own step."""

import torch
from torch import nn
from torch.optim import Optimizer

from wgan_fast import ops
from wgan_fast.arguments import check_number


class LeftOut(float):
    """c of a loop that was not given one: it makes way for the optimiser's."""


CLIP_VALUE = LeftOut(0.01)


def own_bounds(optimizer: Optimizer) -> list[float]:
    """The bounds to which an optimiser clips itself, of the groups that have one."""
    bounds = (group.get("clip_value") for group in optimizer.param_groups)
    return [bound for bound in bounds if bound is not None]


def check_clip_value(clip_value: float | None, optimizer: Optimizer) -> float | None:
    """c, or None for no clipping; if it was given, it must be what the optimiser clips to.

    Raises:
        TypeError, ValueError: it is no number above 0, or the optimiser has another one.
    """
    if isinstance(clip_value, LeftOut):
        return clip_value
    if clip_value is not None:
        clip_value = check_number("clip_value", clip_value, positive=True)
    bounds = own_bounds(optimizer)
    if any(bound != clip_value for bound in bounds):
        there = ", ".join(map(str, dict.fromkeys(bounds)))
        raise ValueError(
            "clip_value: expected it to be left out where critic_optimizer clips in its own step, "
            f"to {there}, got {clip_value}; the loop itself clips nothing then: change "
            'critic_optimizer.param_groups[...]["clip_value"]'
        )
    return clip_value


def bound_of(clip_value: float | None, optimizer: Optimizer) -> float | None:
    """The bound that holds: the loop's c, or the largest of the optimiser's own."""
    return max(own_bounds(optimizer), default=clip_value)


def clip_(critic: nn.Module, clip_value: float | None, optimizer: Optimizer) -> None:
    """Clip the critic's parameters to ±c, where the optimiser has not done so."""
    if clip_value is not None and not own_bounds(optimizer):
        with torch.no_grad():
            ops.clip_weights_(list(critic.parameters()), clip_value)
