"""An optimiser's step without its Python, where that does nothing but call two operators.

On a CPU, Adam's Python takes longer than the update of a small critic.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim import optimizer as hooks

from wgan_fast.ops.registration import EXTENSION_MISSING

_STATE = ("exp_avg", "exp_avg_sq", "step")
_SETTINGS = ("lr", "weight_decay", "eps", "maximize", "decoupled_weight_decay")

Update = tuple[list[Tensor], Any]
"""The parameters of a group that have gradients, and the extension's ``Adam`` of them."""


def take(optimizer: Optimizer) -> list[Update] | None:
    """``optimizer.step()``, or what it would do: from the second step of a fused Adam on a CPU.

    Returns what was done in its place, if that was.
    """
    updates = updates_of(optimizer)
    if updates is None:
        optimizer.step()
        return None
    for parameters, adam in updates:
        adam.step([parameter.grad for parameter in parameters])
    return updates


def updates_of(optimizer: Optimizer) -> list[Update] | None:
    """What a step is, group by group; None where there is more to do, or nothing compiled."""
    if EXTENSION_MISSING is not None or is_watched(optimizer):
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
        updates.append((moved, _adam(group, moved, states)))
    return updates


def is_watched(optimizer: Optimizer) -> bool:
    """Whether somebody, such as a hook or a profiler, would see that ``step`` is not called."""
    return bool(
        ("step" in vars(optimizer) and not _is_scheduled(optimizer))
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or hooks._global_optimizer_pre_hooks
        or hooks._global_optimizer_post_hooks
        or torch._C._autograd._profiler_enabled()
    )


def _is_scheduled(optimizer: Optimizer) -> bool:
    """Whether its ``step`` is the class's own, wrapped by a schedule that has seen a call of it.

    A schedule warns if it is stepped before the optimiser; that is all that it wants to know.
    """
    step = optimizer.step
    return (
        getattr(step, "_wrapped_by_lr_sched", False)
        and getattr(step, "__wrapped__", None) is type(optimizer).step
        and getattr(optimizer, "_opt_called", False)
    )


def _is_one_operator(group: dict[str, Any], moved: list[Tensor], states: list[Any]) -> bool:
    numbers = (group["lr"], *group["betas"])
    return (
        group["fused"]
        and not group["amsgrad"]
        and not any(isinstance(number, Tensor) for number in numbers)
        and type(group["betas"]) is tuple  # a list could change without being another one
        and all(states)
        and all(parameter.is_cpu for parameter in moved)
        and len({parameter.dtype for parameter in moved}) == 1
    )


def _adam(group: dict[str, Any], moved: list[Tensor], states: list[Any]) -> Any:
    from wgan_fast._C import Adam

    averages, squares, steps = ([state[name] for state in states] for name in _STATE)
    beta1, beta2 = group["betas"]
    settings = {name: group[name] for name in _SETTINGS}
    return Adam(moved, averages, squares, steps, beta1=beta1, beta2=beta2, **settings)
