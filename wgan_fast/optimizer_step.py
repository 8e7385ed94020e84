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

Update = dict[str, Any]


def take(optimizer: Optimizer) -> None:
    """``optimizer.step()``, or what it would do: from the second step of a fused Adam on a CPU."""
    own = EXTENSION_MISSING is not None or _is_watched(optimizer)
    updates = None if own else _updates(optimizer)
    if updates is None:
        optimizer.step()
        return
    from wgan_fast._C import adam_step

    for update in updates:
        adam_step(**update)


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


def _updates(optimizer: Optimizer) -> list[Update] | None:
    """The arguments of the operator for each group; None where there is more to do."""
    if type(optimizer) not in (Adam, AdamW) or hasattr(optimizer, "grad_scale"):
        return None
    updates = []
    for group in optimizer.param_groups:
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not moved:
            continue
        update = _update(optimizer, group, moved)
        if update is None:
            return None
        updates.append(update)
    return updates


def _update(optimizer: Optimizer, group: dict[str, Any], moved: list[Tensor]) -> Update | None:
    if not group["fused"] or group["amsgrad"] or isinstance(group["lr"], Tensor):
        return None
    beta1, beta2 = group["betas"]
    if isinstance(beta1, Tensor) or isinstance(beta2, Tensor):
        return None
    states = [optimizer.state[parameter] for parameter in moved]  # which makes an empty one
    if not all(states) or not all(parameter.is_cpu for parameter in moved):
        return None
    if len({parameter.dtype for parameter in moved}) > 1:
        return None
    averages, squares, steps = ([state[name] for state in states] for name in _STATE)
    return {
        "parameters": moved,
        "gradients": [parameter.grad for parameter in moved],
        "averages": averages,
        "squares": squares,
        "steps": steps,
        "beta1": beta1,
        "beta2": beta2,
        **{name: group[name] for name in _SETTINGS},
    }
