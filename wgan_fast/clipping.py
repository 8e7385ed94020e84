"""``clip_weights_``: WGAN's clipping of a critic's weights."""

from collections.abc import Iterable
from typing import Literal, overload

import torch
from torch import Tensor, nn

from wgan_fast import ops
from wgan_fast.arguments import check_number, describe, parameters_of
from wgan_fast.parameter_filters import ParameterFilter, chosen_parameters


@overload
def clip_weights_(
    module_or_parameters: nn.Module | Tensor | Iterable[Tensor],
    clip_value: float,
    *,
    include: ParameterFilter | None = ...,
    exclude: ParameterFilter | None = ...,
    return_fraction: Literal[False] = ...,
) -> None: ...
@overload
def clip_weights_(
    module_or_parameters: nn.Module | Tensor | Iterable[Tensor],
    clip_value: float,
    *,
    include: ParameterFilter | None = ...,
    exclude: ParameterFilter | None = ...,
    return_fraction: Literal[True],
) -> Tensor: ...
def clip_weights_(
    module_or_parameters: nn.Module | Tensor | Iterable[Tensor],
    clip_value: float,
    *,
    include: ParameterFilter | None = None,
    exclude: ParameterFilter | None = None,
    return_fraction: bool = False,
) -> Tensor | None:
    """Clamp every parameter to [−c, c] in place: WGAN's Lipschitz constraint.

    Algorithm 1 of Arjovsky et al., 2017 (arXiv 1701.07875), where c = 0.01; called after each of
    the critic's optimiser steps. One call handles all tensors. NaN stays NaN.
    :class:`wgan_fast.optim.RMSprop` does the same within its step.

    The paper clips everything. A normalisation's scale, which begins at 1, is then crushed to c;
    ``exclude=(nn.LayerNorm, nn.InstanceNorm2d)`` or ``exclude="*norm*"`` leaves it alone, and
    ``include="*.weight"`` takes no bias.

    Args:
        module_or_parameters: a module, whose parameters are clipped and whose buffers (running
            statistics) are not; or a tensor, or an iterable of tensors.
        clip_value: c > 0.
        include: of a module's parameters, clip these alone. A name such as ``"blocks.0.weight"``,
            in which ``*``, ``?`` and ``[...]`` stand for what they do in file names; a module type,
            for the parameters that lie in a module of it, however deep; a collection of these, any
            of which is to match; or a predicate of name and parameter.
        exclude: of what is included, clip these not; likewise.
        return_fraction: return which part of the clipped parameters' numbers is now at −c or c. It
            is near 1 where clipping has made the critic too simple a function (Gulrajani et al.,
            2017, arXiv 1704.00028, figure 1). This takes another pass over the parameters.

    Returns:
        None; or with ``return_fraction`` a 0-dim float32 tensor on the first parameter's device,
        for which nothing waits. NaN is not at a bound.

    Raises:
        TypeError: not a module or floating point tensors; ``clip_value`` is no number; a filter is
            none.
        ValueError: ``clip_value`` is not positive and finite; a filter with tensors, which have no
            names; a filter leaves nothing; ``return_fraction`` of no numbers at all.
    """
    if include is not None or exclude is not None:
        if not isinstance(module_or_parameters, nn.Module):
            raise ValueError(
                "include, exclude: expected a module, whose parameters have names, got "
                f"{describe(module_or_parameters)}"
            )
        module_or_parameters = chosen_parameters(module_or_parameters, include, exclude)
    parameters = parameters_of(module_or_parameters)
    clip_value = check_number("clip_value", clip_value, positive=True)
    with torch.no_grad():
        ops.clip_weights_(parameters, clip_value)
        return _fraction_at_bounds(parameters, clip_value) if return_fraction else None


def _fraction_at_bounds(parameters: list[Tensor], clip_value: float) -> Tensor:
    numbers = sum(parameter.numel() for parameter in parameters)
    if numbers == 0:
        raise ValueError("return_fraction: expected at least one number to clip, got none")
    device = parameters[0].device
    counts = []
    for parameter in parameters:
        # As the parameter's type holds it.
        bound = torch.tensor(clip_value, dtype=parameter.dtype).item()
        counts.append((parameter.abs() >= bound).sum().to(device))
    return torch.stack(counts).sum().to(torch.float32) / numbers
