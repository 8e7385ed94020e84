"""``wgan_fast::rmsprop_``: a step of RMSprop with the clamp in it, all parameters in one call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wgan_fast.ops import registration
from wgan_fast.ops.registration import accumulation_dtype

_SCHEMA = (
    "(Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] square_averages, "
    "Tensor(c!)[] gradient_averages, Tensor(d!)[] momentum_buffers, *, float lr, float alpha, "
    "float eps, float weight_decay, float momentum, bool maximize, float? clip_value, "
    "Tensor? lr_tensor=None) -> ()"
)


def _plain(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    square_averages: Sequence[Tensor],
    gradient_averages: Sequence[Tensor],
    momentum_buffers: Sequence[Tensor],
    *,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    maximize: bool,
    clip_value: float | None,
    lr_tensor: Tensor | None = None,
) -> None:
    for index, parameter in enumerate(parameters):
        kind = accumulation_dtype(parameter.dtype)
        value, gradient = parameter.to(kind), gradients[index].to(kind)
        if maximize:
            gradient = -gradient
        if weight_decay != 0:
            gradient = gradient.add(value, alpha=weight_decay)
        square = square_averages[index].to(kind) * alpha
        square.addcmul_(gradient, gradient, value=1 - alpha)
        square_averages[index].copy_(square)
        if gradient_averages:
            average = gradient_averages[index].to(kind).lerp(gradient, 1 - alpha)
            gradient_averages[index].copy_(average)
            square.addcmul_(average, average, value=-1)
        direction = gradient / square.sqrt_().add_(eps)
        if momentum_buffers:
            direction.add_(momentum_buffers[index].to(kind), alpha=momentum)
            momentum_buffers[index].copy_(direction)
        step = direction * (lr if lr_tensor is None else lr_tensor.to(kind).reshape(()))
        parameter.copy_(value - step)
        if clip_value is not None:
            parameter.clamp_(-clip_value, clip_value)


registration.define("rmsprop_", _SCHEMA, _plain)


@torch.library.register_fake("wgan_fast::rmsprop_")
def _fake(*tensors: Sequence[Tensor], **settings: Any) -> None:
    return None


def _count_the_change(keyset: Any, *tensors: Sequence[Tensor], **settings: Any) -> None:
    # A graph that saved a parameter must notice that it has changed since, as after add_.
    parameters, _, *states = tensors
    torch.autograd.graph.increment_version([t for group in (parameters, *states) for t in group])
    with torch._C._AutoDispatchBelowADInplaceOrView():
        below = keyset & torch._C._after_ADInplaceOrView_keyset
        torch.ops.wgan_fast.rmsprop_.default.redispatch(below, *tensors, **settings)


registration.LIBRARY.impl("rmsprop_", _count_the_change, "ADInplaceOrView", with_keyset=True)


def rmsprop_(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    square_averages: Sequence[Tensor],
    gradient_averages: Sequence[Tensor] = (),
    momentum_buffers: Sequence[Tensor] = (),
    *,
    lr: float | Tensor,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    maximize: bool = False,
    clip_value: float | None = None,
) -> None:
    """One step of RMSprop and the clamp to [−clip_value, clip_value], in place.

    With θ a parameter, g its gradient (−g to maximize), v its square average, m its gradient
    average and b its momentum buffer::

        g ← g + weight_decay · θ
        v ← alpha · v + (1 − alpha) · g²
        m ← alpha · m + (1 − alpha) · g             if there are gradient averages
        d ← g / (√(v − m²) + eps)                   m = 0 if there are none
        b ← momentum · b + d                        if there are momentum buffers, which then are d
        θ ← clamp(θ − lr · d, −clip_value, clip_value)

    Args:
        parameters: floating point tensors of any sizes and strides, on one device.
        gradients: one for each parameter, with its shape, dtype and device.
        square_averages: v, likewise.
        gradient_averages: m, likewise; empty for uncentered RMSprop.
        momentum_buffers: b, likewise; empty for none.
        lr: a number, or a tensor with one number on the parameters' device, which is not read
            on the host.
        alpha: the averages' share of the past.
        eps: added to the root.
        weight_decay: the L2 penalty's factor.
        momentum: b's share of the past.
        maximize: climb.
        clip_value: the bound; None for no clamp.

    Each number is computed in the accumulation type and rounded once. NaN stays NaN. Not
    differentiable: call it under ``torch.no_grad()``.
    """
    on_device = isinstance(lr, Tensor)
    torch.ops.wgan_fast.rmsprop_(
        parameters,
        gradients,
        square_averages,
        gradient_averages,
        momentum_buffers,
        lr=0.0 if on_device else lr,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
        maximize=maximize,
        clip_value=clip_value,
        lr_tensor=lr if on_device else None,
    )
