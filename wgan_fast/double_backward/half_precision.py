"""Room for float16: by which power of two to multiply cotangents and tangents while they are half.

Half precision has no room for the 1/B of a mean, nor for a sum over very many, and GradScaler comes
too late: its factor multiplies gradients that are done. So the cotangents of a mean are made larger
and the sums divided in float32 at the end. Whatever is large already must not be made larger: a
steep critic's gradients would overflow in every step, and no factor of GradScaler's would help.
How much larger is decided on the device, by the scores and by what is known of the tangents. Where
gradients overflow all the same, they are computed once more with the cotangents as they are.
"""

import math
from typing import Any

import torch
from torch import Tensor

from wgan_fast.ops import accumulation_dtype

# Float16 ends at 2^16; sums over the last layers' features are larger than the scores they make.
_ROOM = 2.0**12
LARGEST_SCALE = 64.0
# Of products of tangents and cotangents only their ends are known, so these get more room.
_ROOM_FOR_PRODUCTS = 2.0**10


def _power_of_two(room: float, size: Tensor, largest: float) -> Tensor:
    """The largest power of two up to ``largest``, itself one, that takes a size to the room."""
    exponent = torch.floor(torch.log2(room / size))
    return torch.exp2(exponent.clamp(-40.0, math.log2(largest)))


def scale_of_mean(samples: int, largest: float) -> float:
    """How much larger to make cotangents than those of a mean over so many samples, at most."""
    return float(2.0 ** math.floor(math.log2(min(samples, largest))))


def scale_of_loss(scores: Tensor, samples: int, largest: float) -> Tensor:
    """The same where the cotangents are those of a loss of these scores."""
    return _power_of_two(_ROOM, scores.abs().amax().float(), scale_of_mean(samples, largest))


def overflowed(value: Tensor, gradients: list[Tensor | None]) -> bool:
    """Whether a finite value has gradients that are not; never asked of a trace or a capture."""
    capturing = value.is_cuda and torch.cuda.is_current_stream_capturing()
    there = [gradient for gradient in gradients if gradient is not None]
    if capturing or torch._C._len_torch_dispatch_stack() > 0 or not there:
        return False
    finite = torch.stack([gradient.isfinite().all() for gradient in there]).all()
    return bool(value.isfinite() & ~finite)


def fitted(
    direction: Tensor,
    factor: float | Tensor,
    gradient: Tensor,
    norms: Tensor,
    deltas: list[Any],
) -> tuple[Tensor, Tensor]:
    """(direction · factor · r, r) with r ≤ 1 so small that a pass from there stays in float16.

    A parameter's gradient is a sum over samples of products of a tangent, which is this at the
    input and its product with ∇f at the scores, and a cotangent, one of ``deltas`` inside of the
    critic and ``gradient`` at its input.
    """
    wide = direction.to(accumulation_dtype(direction.dtype)) * factor
    sizes = torch.linalg.vector_norm(wide.flatten(1), dim=1).float()
    cotangents = [torch.linalg.vector_norm(gradient.flatten(1), dim=1).amax().float()]
    inside = [
        part
        for delta in deltas
        for part in (delta if isinstance(delta, list) else [delta])
        if isinstance(part, Tensor)
    ]
    if inside:
        cotangents += [norm.float() for norm in torch._foreach_norm(inside, math.inf)]
    sums = sizes.sum() * torch.stack(cotangents).amax()
    at_the_scores = sizes.amax() * norms.amax().float().clamp(min=1.0)
    r = _power_of_two(_ROOM_FOR_PRODUCTS, torch.maximum(sums, at_the_scores), 1.0)
    return (wide * r).to(direction.dtype), r


def times(tensor: Tensor | None, r: Tensor) -> Tensor | None:
    """``tensor · r``, multiplied in the accumulation type."""
    if tensor is None:
        return None
    return (tensor.to(accumulation_dtype(tensor.dtype)) * r).to(tensor.dtype)
