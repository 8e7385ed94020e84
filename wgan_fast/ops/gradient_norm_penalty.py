"""``wgan_fast::gradient_norm_penalty``: from input gradients to norms, penalty and direction.

For rows gᵢ of a batch of B, with φ(n) = |n − target|^power, or max(0, n − target)^power where
one-sided, weights wᵢ (1 if left out) and a mask m (1 if left out):

    norm nᵢ = ‖m gᵢ‖_p,   penalty φ(nᵢ),   direction vᵢ = wᵢ φ'(nᵢ) uᵢ / B,   uᵢ = ∂nᵢ/∂gᵢ

With w = 1, v is the derivative of the mean penalty in g. u is m² g / n for p = 2, m sign(g) for
p = 1, and for p = ∞ m sign(g) where |m g| is largest, shared evenly between equals. Where nᵢ = 0,
its derivatives are taken as 0, of every order; so are those of φ(nᵢ), save where it is a polynomial
in gᵢ (p = 2, target 0 and an even power) and has true ones: v = 2 w m² g / B of a squared norm has
the derivative 2 w m² / B everywhere.
"""

from typing import Any

import torch
from torch import Tensor

from wgan_fast.ops import registration
from wgan_fast.ops.phi import Phi
from wgan_fast.ops.registration import accumulation_dtype
from wgan_fast.ops.rows import memory_rows, per_sample, shared_layout

Triple = tuple[Tensor, Tensor, Tensor]

# What both operators take after their tensors.
_FAMILY = (
    "float target, bool one_sided, float power=2., float p=2., Tensor? weights=None,"
    " Tensor? mask=None"
)


def _masked(gradient: Tensor, mask: Tensor | None) -> Tensor:
    """The product m g in the accumulation type."""
    wide = gradient.to(accumulation_dtype(gradient.dtype))
    return wide if mask is None else wide * mask.to(wide.dtype)


def _norm(wide: Tensor, p: float) -> Tensor:
    rows = wide.flatten(1)
    if rows.shape[1] == 0:
        return wide.new_zeros(rows.shape[0])
    return torch.linalg.vector_norm(rows, p, dim=1)


def _unit(wide: Tensor, norm: Tensor, p: float) -> Tensor:
    """∂n/∂(m g), zero where the norm is; differentiable for p = 2, locally constant otherwise."""
    if p == 2:
        # Both branches of a where are differentiated: the division must be finite in the unused.
        safe = torch.where(norm > 0, norm, 1)
        return wide * per_sample(torch.where(norm > 0, 1 / safe, 0), wide)
    if p == 1:
        return wide.sign()
    at_largest = wide.abs() == per_sample(norm, wide)
    count = at_largest.flatten(1).sum(1).clamp(min=1).to(wide.dtype)
    return torch.where(at_largest, wide.sign(), 0) / per_sample(count, wide)


def _share(norm: Tensor, weights: Tensor | None) -> Tensor | float:
    """Each sample's w / B."""
    batch = max(norm.shape[0], 1)
    return 1 / batch if weights is None else weights.to(norm.dtype) / batch


def _differentiable_norm(wide: Tensor, p: float) -> Tensor:
    """The norm with derivatives of every order, which are 0 where it is."""
    zero = _norm(wide.detach(), p) == 0
    # A norm that is not zero stands in, since both branches of a where are differentiated.
    return torch.where(zero, 0, _norm(torch.where(per_sample(zero, wide), 1, wide), p))


def _formula(
    gradient: Tensor,
    target: float,
    one_sided: bool,
    power: float = 2.0,
    p: float = 2.0,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Triple:
    """The definition, differentiable without end; the direction comes in the accumulation type."""
    phi = Phi(target, one_sided, power)
    wide = _masked(gradient, mask)
    norm = _differentiable_norm(wide, p)
    share = _share(norm, weights)
    if p == 2 and phi.is_even:
        squares = wide.flatten(1).square().sum(1)
        penalty = squares ** (power / 2)
        direction = wide * per_sample(power * share * squares ** (power / 2 - 1), wide)
    else:
        penalty = phi.value(norm)
        direction = _unit(wide, norm, p) * per_sample(phi.slope(norm) * share, wide)
    return norm, penalty, direction if mask is None else direction * mask.to(wide.dtype)


def _plain(
    gradient: Tensor,
    target: float,
    one_sided: bool,
    power: float = 2.0,
    p: float = 2.0,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Triple:
    phi = Phi(target, one_sided, power)
    wide = _masked(gradient, mask)
    norm = _norm(wide, p)
    slope = phi.slope(norm) * _share(norm, weights)
    direction = _unit(wide, norm, p) * per_sample(slope, wide)
    if mask is not None:
        direction = direction * mask.to(wide.dtype)
    return norm, phi.value(norm), torch.empty_like(gradient).copy_(direction)


def _plain_backward(
    grad_norm: Tensor,
    grad_penalty: Tensor,
    grad_direction: Tensor | None,
    gradient: Tensor,
    norm: Tensor,
    target: float,
    one_sided: bool,
    power: float = 2.0,
    p: float = 2.0,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    phi = Phi(target, one_sided, power)
    wide = _masked(gradient, mask)
    unit = _unit(wide, norm, p)
    slope = phi.slope(norm)
    of_unit = grad_norm + grad_penalty * slope
    rest: Tensor | float = 0.0
    if grad_direction is not None:
        incoming = _masked(grad_direction, mask)
        share = _share(norm, weights)
        bend = phi.curvature(norm)
        if p == 2:  # the unit vector itself turns with g
            at_zero = 2.0 if phi.is_even and power == 2 else 0.0
            turning = torch.where(norm > 0, slope / torch.where(norm > 0, norm, 1), at_zero)
            bend = bend - turning
            rest = incoming * per_sample(share * turning, wide)
        of_unit = of_unit + share * bend * (unit * incoming).flatten(1).sum(1)
    result = unit * per_sample(torch.where(norm > 0, of_unit, 0), wide) + rest
    if mask is not None:
        result = result * mask.to(wide.dtype)
    return torch.empty_like(gradient).copy_(result)


registration.define(
    "gradient_norm_penalty",
    f"(Tensor gradient, {_FAMILY}) -> (Tensor norm, Tensor penalty, Tensor direction)",
    _plain,
)
registration.define(
    "gradient_norm_penalty_backward",
    "(Tensor grad_norm, Tensor grad_penalty, Tensor? grad_direction, Tensor gradient, Tensor norm,"
    f" {_FAMILY}) -> Tensor",
    _plain_backward,
)


def _triton(
    gradient: Tensor,
    target: float,
    one_sided: bool,
    power: float = 2.0,
    p: float = 2.0,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Triple:
    from wgan_fast.kernels.gradient_norm_penalty import gradient_norm_penalty_rows

    dense, mask = _as_rows(gradient, mask)
    direction = torch.empty_like(dense)
    norm = dense.new_empty(dense.shape[0], dtype=accumulation_dtype(dense.dtype))
    penalty = torch.empty_like(norm)
    gradient_norm_penalty_rows(
        memory_rows(dense),
        norm,
        penalty,
        memory_rows(direction),
        (target, one_sided, power, p),
        None if weights is None else weights.contiguous(),
        mask,
    )
    if dense is not gradient:
        direction = torch.empty_like(gradient).copy_(direction)
    return norm, penalty, direction


def _triton_backward(
    grad_norm: Tensor,
    grad_penalty: Tensor,
    grad_direction: Tensor | None,
    gradient: Tensor,
    norm: Tensor,
    target: float,
    one_sided: bool,
    power: float = 2.0,
    p: float = 2.0,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    from wgan_fast.kernels.gradient_norm_penalty_backward import (
        gradient_norm_penalty_backward_rows,
    )

    dense, mask = _as_rows(gradient, mask)
    incoming = None
    if grad_direction is not None:
        incoming = memory_rows(_laid_out_like(dense, grad_direction))
    result = torch.empty_like(dense)
    gradient_norm_penalty_backward_rows(
        grad_norm.contiguous(),
        grad_penalty.contiguous(),
        incoming,
        memory_rows(dense),
        norm.contiguous(),
        memory_rows(result),
        (target, one_sided, power, p),
        None if weights is None else weights.contiguous(),
        mask,
    )
    return result if dense is gradient else torch.empty_like(gradient).copy_(result)


def _as_rows(gradient: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The gradient with each sample one run of memory, and the mask's rows in the same order."""
    dense = gradient if shared_layout(gradient) else gradient.contiguous()
    return dense, None if mask is None else memory_rows(_laid_out_like(dense, mask))


def _laid_out_like(dense: Tensor, other: Tensor) -> Tensor:
    return other if shared_layout(dense, other) else torch.empty_like(dense).copy_(other)


registration.register_triton("gradient_norm_penalty", _triton)
registration.register_triton("gradient_norm_penalty_backward", _triton_backward)


@torch.library.register_fake("wgan_fast::gradient_norm_penalty")
def _fake(gradient: Tensor, *family: Any, **named: Any) -> Triple:
    norm = gradient.new_empty(gradient.shape[0], dtype=accumulation_dtype(gradient.dtype))
    return norm, torch.empty_like(norm), torch.empty_like(gradient)


@torch.library.register_fake("wgan_fast::gradient_norm_penalty_backward")
def _fake_backward(
    grad_norm: Tensor,
    grad_penalty: Tensor,
    grad_direction: Tensor | None,
    gradient: Tensor,
    *family: Any,
    **named: Any,
) -> Tensor:
    return torch.empty_like(gradient)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Triple) -> None:
    gradient, *ctx.phi, weights, mask = inputs
    ctx.save_for_backward(gradient, output[0], weights, mask)
    # The direction rarely gets a gradient of its own; a tensor of zeros would cost three passes.
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any,
    grad_norm: Tensor | None,
    grad_penalty: Tensor | None,
    grad_direction: Tensor | None,
) -> tuple[Tensor | None, ...]:
    gradient, norm, weights, mask = ctx.saved_tensors
    family = (*ctx.phi, weights, mask)
    nothing = (None,) * len(family)
    incoming = (grad_norm, grad_penalty, grad_direction)
    if all(grad is None for grad in incoming):
        return None, *nothing
    if torch.is_grad_enabled():  # create_graph=True: the definition, differentiable without end
        outputs = _formula(gradient, *family)
        pairs = [
            (out, grad) for out, grad in zip(outputs, incoming, strict=True) if grad is not None
        ]
        (result,) = torch.autograd.grad(
            [out for out, _ in pairs],
            gradient,
            [grad.to(out.dtype) for out, grad in pairs],
            create_graph=True,
        )
        return result, *nothing
    result = torch.ops.wgan_fast.gradient_norm_penalty_backward(
        torch.zeros_like(norm) if grad_norm is None else grad_norm,
        torch.zeros_like(norm) if grad_penalty is None else grad_penalty,
        grad_direction,
        gradient,
        norm,
        *family,
    )
    return result, *nothing


torch.library.register_autograd(
    "wgan_fast::gradient_norm_penalty", _backward, setup_context=_setup_context
)


def gradient_norm_penalty(
    gradient: Tensor,
    target: float = 1.0,
    one_sided: bool = False,
    *,
    power: float = 2.0,
    p: float = 2.0,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Triple:
    """Per-sample norm, penalty φ and direction v of a batch of input gradients, in one call.

    Args:
        gradient: ``(B, ...)``, float64, float32, bfloat16 or float16.
        target: the norm at which φ is zero.
        one_sided: punish only norms above ``target``.
        power: of φ, at least 1.
        p: of the norm: 1, 2 or ``math.inf``.
        weights: ``(B,)``, float64 for float64 gradients, else float32; factors of the direction.
            No gradient flows into them.
        mask: shape and dtype of ``gradient``; factors of its numbers. No gradient flows into it.

    Returns:
        ``norm`` and ``penalty``, ``(B,)`` in float32 (float64 for float64), and ``direction`` with
        shape, dtype and memory format of ``gradient``. Sums are taken in float32 (float64 for
        float64). Differentiable in ``gradient`` any number of times; the first derivative has its
        own kernel.
    """
    return torch.ops.wgan_fast.gradient_norm_penalty(
        gradient, float(target), one_sided, float(power), float(p), weights, mask
    )
