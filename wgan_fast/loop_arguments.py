"""The checks on what :class:`wgan_fast.CriticLoop` is given."""

from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils._pytree import keystr, tree_flatten_with_path

from wgan_fast.arguments import check_choice, check_samples, describe
from wgan_fast.penalties import Penalty, check_penalty
from wgan_fast.routes import BACKENDS
from wgan_fast.sample_forms import check_several, is_several
from wgan_fast.steps import trained


def check_module(name: str, module: Any) -> nn.Module:
    """A module with parameters to train, none of them with a hook."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"{name}: expected an nn.Module, got {describe(module)}")
    parameters = trained(module)
    if not parameters:
        raise ValueError(f"{name}: expected parameters that require gradients, found none")
    for parameter_name, parameter in parameters.items():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise ValueError(
                f"{name}: {parameter_name} has a hook on its gradient, which a graph would not "
                "call; take critic_loss in a loop of your own"
            )
    return module


def check_optimizer(name: str, optimizer: Any, module: nn.Module) -> Optimizer:
    """An optimiser over the module's parameters alone."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{name}: expected a torch.optim.Optimizer, got {describe(optimizer)}")
    own = {id(parameter) for parameter in module.parameters()}
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not given <= own:
        raise ValueError(f"{name}: expected it over the {name.split('_')[0]}'s parameters alone")
    return optimizer


def check_shape(latent_shape: Any) -> tuple[int, ...]:
    """The shape of one z."""
    shape = (latent_shape,) if isinstance(latent_shape, int) else tuple(latent_shape)
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(
            f"latent_shape: expected a positive integer or a tuple of them, got {latent_shape!r}"
        )
    return shape


def check_count(name: str, count: Any, least: int = 1) -> int:
    """An integer that counts something."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {count!r}")
    return count


def check_callable(name: str, function: Any) -> Any:
    """Something that can be called."""
    if not callable(function):
        raise TypeError(f"{name}: expected a callable, got {describe(function)}")
    return function


def check_backend(backend: Any, mode: str) -> None:
    """A backend that runs in the mode."""
    check_choice("backend", backend, BACKENDS)
    if backend == "first_order" and mode in ("captured", "compiled"):
        raise ValueError(f'backend: "first_order" runs in mode="eager" alone, got mode={mode!r}')


def check_penalty_of(objective: str, penalty: Any) -> Penalty | None:
    """The penalty of a loop with that objective, wgan-gp's own if it is left out; None for none."""
    if objective == "wgan" and penalty is not None:
        raise ValueError(
            f"penalty: expected None for objective={objective!r}, got {penalty!r}; the same "
            'loss with a penalty is objective="wgan-gp"'
        )
    return None if penalty is None and objective != "wgan-gp" else check_penalty(penalty)


def check_reals(reals: Any, n_critic: int, critic: nn.Module) -> None:
    """A real batch for each critic step, of one or several tensors, where the critic is."""
    if is_several(reals):
        check_several("reals", reals)
        found, _ = tree_flatten_with_path(reals)
    else:
        check_samples("reals", reals)
        found = [((), reals)]
    there = next(one.device for one in critic.parameters() if one.requires_grad)
    batch = found[0][1].shape[1]
    for path, one in found:
        name = f"reals{keystr(path)}"
        if one.dim() < 3 or one.shape[0] != n_critic:
            raise ValueError(
                f"{name}: expected shape (n_critic, B, ...) with n_critic = {n_critic}, got "
                f"{tuple(one.shape)}; torch.stack the batches of an iteration"
            )
        if one.shape[1] != batch:
            raise ValueError(
                f"{name}: expected as many samples as in reals{keystr(found[0][0])}, {batch}, got "
                f"{tuple(one.shape)}"
            )
        if one.device != there:
            raise ValueError(
                f"{name}: expected them on the critic's device, {there}, got {describe(one)}"
            )


def check_penalised(penalty: Penalty | None, mask: Any, separate: bool, reals: Any) -> None:
    """What a gradient is looked at with, in a loop that looks at one."""
    if separate and not is_several(reals):
        raise ValueError(
            'inputs: expected reals of several tensors, a tuple, list or dict, for "separate", got '
            f"{describe(reals)}"
        )
    if penalty is None and (separate or mask is not None):
        name = "inputs" if separate else "mask"
        wanted, got = ('"joint"', '"separate"') if separate else ("None", describe(mask))
        raise ValueError(f"{name}: expected {wanted} where there is no penalty, got {got}")
