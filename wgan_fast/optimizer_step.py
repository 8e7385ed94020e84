"""An optimiser's step without its Python, where that does nothing but call two operators.

On a CPU, Adam's Python takes longer than the update of a small critic.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim import optimizer as hooks

from wgan_fast.ops.registration import EXTENSION_MISSING

_STATE = ("exp_avg", "exp_avg_sq", "step")
_SETTINGS = ("lr", "weight_decay", "eps", "maximize", "decoupled_weight_decay")


class Update:
    """A step of one group of a fused Adam, as long as nobody else touches the optimiser."""

    def __init__(self, parameters: list[Tensor], states: list[Any], group: dict[str, Any]) -> None:
        from wgan_fast._C import Adam

        self.parameters = parameters
        averages, squares, steps = ([state[name] for state in states] for name in _STATE)
        beta1, beta2 = group["betas"]
        settings = {name: group[name] for name in _SETTINGS}
        self._adam = Adam(
            parameters, averages, squares, steps, beta1=beta1, beta2=beta2, **settings
        )

    def __call__(self, gradients: Sequence[Tensor]) -> None:
        """The step by these gradients, one for each of the parameters."""
        self._adam.step(gradients)


def take(optimizer: Optimizer) -> None:
    """``optimizer.step()``, or what it would do: from the second step of a fused Adam on a CPU."""
    updates = updates_of(optimizer)
    if updates is None:
        optimizer.step()
        return
    for update in updates:
        update([parameter.grad for parameter in update.parameters])  # type: ignore[misc]


def updates_of(optimizer: Optimizer) -> list[Update] | None:
    """What a step is, group by group; None where there is more to do, or nothing compiled."""
    if EXTENSION_MISSING is not None or _is_watched(optimizer):
        return None
    if type(optimizer) not in (Adam, AdamW) or hasattr(optimizer, "grad_scale"):
        return None
    updates = []
    for group in optimizer.param_groups:
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not moved:
            continue
        states = [optimizer.state[parameter] for parameter in moved]  # which makes an empty one
        if not _is_one_operator(group, moved, states):
            return None
        updates.append(Update(moved, states, group))
    return updates


def _is_watched(optimizer: Optimizer) -> bool:
    """Whether somebody, such as a schedule or a profiler, would see that ``step`` is not called."""
    return bool(
        "step" in vars(optimizer)
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or hooks._global_optimizer_pre_hooks
        or hooks._global_optimizer_post_hooks
        or torch._C._autograd._profiler_enabled()
    )


def _is_one_operator(group: dict[str, Any], moved: list[Tensor], states: list[Any]) -> bool:
    numbers = (group["lr"], *group["betas"])
    return (
        group["fused"]
        and not group["amsgrad"]
        and not any(isinstance(number, Tensor) for number in numbers)
        and all(states)
        and all(parameter.is_cpu for parameter in moved)
        and len({parameter.dtype for parameter in moved}) == 1
    )
