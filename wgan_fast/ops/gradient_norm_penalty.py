"""``wgan_fast::gradient_norm_penalty``: from input gradients to norms, penalty and direction.

For rows gᵢ of a batch of B, with φ(n) = (n − target)², or max(0, n − target)² where one-sided:

    norm nᵢ = ‖gᵢ‖₂,   penalty φ(nᵢ),   direction vᵢ = φ'(nᵢ) gᵢ / (B nᵢ)

v is the derivative of the mean penalty in g. Where nᵢ = 0, its subgradient 0 is taken.
"""

from typing import Any

import torch
from torch import Tensor

from wgan_fast.ops import registration
from wgan_fast.ops.registration import accumulation_dtype
from wgan_fast.ops.rows import memory_rows, per_sample, shared_layout

Triple = tuple[Tensor, Tensor, Tensor]


def _formula(gradient: Tensor, target: float, one_sided: bool) -> Triple:
    """The definition in differentiable PyTorch; the direction comes in the accumulation type."""
    wide = gradient.to(accumulation_dtype(gradient.dtype))
    norm = torch.linalg.vector_norm(wide.flatten(1), dim=1)
    excess = norm - target
    if one_sided:
        excess = excess.clamp(min=0)
    # Both branches of a where are differentiated: the division must be finite in the unused one.
    safe = torch.where(norm > 0, norm, 1)
    slope = torch.where(norm > 0, 2 * excess / (safe * max(gradient.shape[0], 1)), 0)
    return norm, excess**2, wide * per_sample(slope, gradient)


def _plain(gradient: Tensor, target: float, one_sided: bool) -> Triple:
    norm, penalty, direction = _formula(gradient, target, one_sided)
    return norm, penalty, torch.empty_like(gradient).copy_(direction)


def _plain_backward(
    grad_norm: Tensor,
    grad_penalty: Tensor,
    grad_direction: Tensor | None,
    gradient: Tensor,
    norm: Tensor,
    target: float,
    one_sided: bool,
) -> Tensor:
    wide = gradient.to(norm.dtype)
    excess = norm - target
    if one_sided:
        excess = excess.clamp(min=0)
    safe = torch.where(norm > 0, norm, 1)
    along = (grad_norm + 2 * excess * grad_penalty) / safe  # coefficient of g
    result = wide * per_sample(torch.where(norm > 0, along, 0), gradient)
    if grad_direction is not None:
        batch = gradient.shape[0]
        incoming = grad_direction.to(norm.dtype)
        slope = torch.where(norm > 0, 2 * excess / (safe * batch), 0)  # h(n)
        active = (norm > 0) if not one_sided else (norm > 0) & (norm > target)
        curvature = torch.where(active, 2 * target / (safe**3 * batch), 0)  # h'(n) / n
        inner = (wide * incoming).flatten(1).sum(1)
        result = result + incoming * per_sample(slope, gradient)
        result = result + wide * per_sample(curvature * inner, gradient)
    return torch.empty_like(gradient).copy_(result)


registration.define(
    "gradient_norm_penalty",
    "(Tensor gradient, float target, bool one_sided)"
    " -> (Tensor norm, Tensor penalty, Tensor direction)",
    _plain,
)
registration.define(
    "gradient_norm_penalty_backward",
    "(Tensor grad_norm, Tensor grad_penalty, Tensor? grad_direction, Tensor gradient, Tensor norm,"
    " float target, bool one_sided) -> Tensor",
    _plain_backward,
)


def _triton(gradient: Tensor, target: float, one_sided: bool) -> Triple:
    from wgan_fast.kernels.gradient_norm_penalty import gradient_norm_penalty_rows

    dense = gradient if shared_layout(gradient) else gradient.contiguous()
    direction = torch.empty_like(dense)
    norm = dense.new_empty(dense.shape[0], dtype=accumulation_dtype(dense.dtype))
    penalty = torch.empty_like(norm)
    gradient_norm_penalty_rows(
        memory_rows(dense), norm, penalty, memory_rows(direction), target, one_sided
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
) -> Tensor:
    from wgan_fast.kernels.gradient_norm_penalty import gradient_norm_penalty_backward_rows

    incoming = grad_direction
    shared = shared_layout(gradient, *([] if incoming is None else [incoming]))
    dense = gradient if shared else gradient.contiguous()
    if incoming is not None and not shared:
        incoming = incoming.contiguous()
    result = torch.empty_like(dense)
    gradient_norm_penalty_backward_rows(
        grad_norm.contiguous(),
        grad_penalty.contiguous(),
        None if incoming is None else memory_rows(incoming),
        memory_rows(dense),
        norm.contiguous(),
        memory_rows(result),
        target,
        one_sided,
    )
    return result if dense is gradient else torch.empty_like(gradient).copy_(result)


registration.register_triton("gradient_norm_penalty", _triton)
registration.register_triton("gradient_norm_penalty_backward", _triton_backward)


@torch.library.register_fake("wgan_fast::gradient_norm_penalty")
def _fake(gradient: Tensor, target: float, one_sided: bool) -> Triple:
    norm = gradient.new_empty(gradient.shape[0], dtype=accumulation_dtype(gradient.dtype))
    return norm, torch.empty_like(norm), torch.empty_like(gradient)


@torch.library.register_fake("wgan_fast::gradient_norm_penalty_backward")
def _fake_backward(
    grad_norm: Tensor,
    grad_penalty: Tensor,
    grad_direction: Tensor | None,
    gradient: Tensor,
    norm: Tensor,
    target: float,
    one_sided: bool,
) -> Tensor:
    return torch.empty_like(gradient)


def _setup_context(ctx: Any, inputs: tuple[Tensor, float, bool], output: Triple) -> None:
    gradient, ctx.target, ctx.one_sided = inputs
    ctx.save_for_backward(gradient, output[0])
    # The direction rarely gets a gradient of its own; a tensor of zeros would cost three passes.
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any,
    grad_norm: Tensor | None,
    grad_penalty: Tensor | None,
    grad_direction: Tensor | None,
) -> tuple[Tensor | None, None, None]:
    gradient, norm = ctx.saved_tensors
    incoming = (grad_norm, grad_penalty, grad_direction)
    if all(grad is None for grad in incoming):
        return None, None, None
    if torch.is_grad_enabled():  # create_graph=True: the definition, differentiable without end
        outputs = _formula(gradient, ctx.target, ctx.one_sided)
        pairs = [
            (out, grad) for out, grad in zip(outputs, incoming, strict=True) if grad is not None
        ]
        (result,) = torch.autograd.grad(
            [out for out, _ in pairs],
            gradient,
            [grad.to(out.dtype) for out, grad in pairs],
            create_graph=True,
        )
        return result, None, None
    result = torch.ops.wgan_fast.gradient_norm_penalty_backward(
        torch.zeros_like(norm) if grad_norm is None else grad_norm,
        torch.zeros_like(norm) if grad_penalty is None else grad_penalty,
        grad_direction,
        gradient,
        norm,
        ctx.target,
        ctx.one_sided,
    )
    return result, None, None


torch.library.register_autograd(
    "wgan_fast::gradient_norm_penalty", _backward, setup_context=_setup_context
)


def gradient_norm_penalty(gradient: Tensor, target: float = 1.0, one_sided: bool = False) -> Triple:
    """Per-sample norm, penalty φ and direction v of a batch of input gradients, in one call.

    Args:
        gradient: ``(B, ...)``, float64, float32, bfloat16 or float16.
        target: the norm at which φ is zero.
        one_sided: punish only norms above ``target``.

    Returns:
        ``norm`` and ``penalty``, ``(B,)`` in float32 (float64 for float64), and ``direction`` with
        shape, dtype and memory format of ``gradient``. Sums are taken in float32 (float64 for
        float64). Differentiable any number of times; the first derivative has its own kernel.
    """
    return torch.ops.wgan_fast.gradient_norm_penalty(gradient, float(target), one_sided)
