"""``wgan_fast::interpolate``: the points between real and fake samples at which WGAN-GP looks."""

from typing import Any

import torch
from torch import Tensor

from wgan_fast.ops import registration
from wgan_fast.ops.rows import memory_rows, per_sample, shared_layout


def _plain(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    weight = per_sample(alpha, real)
    mixed = weight * real.to(alpha.dtype) + (1 - weight) * fake.to(alpha.dtype)
    return torch.empty_like(real).copy_(mixed)


registration.define("interpolate", "(Tensor real, Tensor fake, Tensor alpha) -> Tensor", _plain)


def _triton(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    from wgan_fast.kernels.interpolate import interpolate_rows

    output = torch.empty_like(real)
    if shared_layout(real, fake, output):
        interpolate_rows(
            memory_rows(real), memory_rows(fake), alpha.contiguous(), memory_rows(output)
        )
        return output
    contiguous = torch.ops.wgan_fast.interpolate(real.contiguous(), fake.contiguous(), alpha)
    return output.copy_(contiguous)


registration.register_triton("interpolate", _triton)


@torch.library.register_fake("wgan_fast::interpolate")
def _fake(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    return torch.empty_like(real)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    real, fake, alpha = inputs
    # Only α's gradient needs the samples; the usual case keeps B numbers.
    ctx.save_for_backward(alpha, *((real, fake) if ctx.needs_input_grad[2] else ()))
    ctx.dtypes = real.dtype, fake.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    alpha, *samples = ctx.saved_tensors
    weight = per_sample(alpha, grad)
    for_real, for_fake, for_alpha = ctx.needs_input_grad
    grad_alpha = None
    if for_alpha:
        real, fake = (sample.to(alpha.dtype) for sample in samples)
        grad_alpha = ((real - fake) * grad).flatten(1).sum(1)
    return (
        (weight * grad).to(ctx.dtypes[0]) if for_real else None,
        ((1 - weight) * grad).to(ctx.dtypes[1]) if for_fake else None,
        grad_alpha,
    )


torch.library.register_autograd("wgan_fast::interpolate", _backward, setup_context=_setup_context)


def interpolate(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """x̂ᵢ = αᵢ realᵢ + (1 − αᵢ) fakeᵢ; arguments unchecked, see :func:`wgan_fast.interpolate`.

    Args:
        real: ``(B, ...)``, float64, float32, bfloat16 or float16.
        fake: like ``real``.
        alpha: ``(B,)``, float64 for float64 samples, float32 for all others.

    Returns:
        Shape, dtype and memory format of ``real``; computed in α's type and rounded once.
        Differentiable any number of times.
    """
    return torch.ops.wgan_fast.interpolate(real, fake, alpha)
