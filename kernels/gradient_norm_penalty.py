"""Per-sample gradient norm, penalty and direction, and the backward of the three."""

import torch
import triton
import triton.language as tl

LARGEST_BLOCK = 2048


@triton.jit
def _slope(norm, excess):
    """φ'(n) / n, and 0 at n = 0, where the subgradient 0 is taken."""
    return tl.where(norm > 0, 2 * excess / tl.where(norm > 0, norm, 1), 0)


@triton.jit
def _excess(norm, TARGET: tl.constexpr, ONE_SIDED: tl.constexpr):
    """How far the norm is from the target, or above it."""
    excess = norm - tl.full((), TARGET, norm.dtype)
    if ONE_SIDED:
        excess = tl.maximum(excess, 0)
    return excess


@triton.jit
def gradient_norm_penalty_kernel(
    gradient_pointer,
    norm_pointer,
    penalty_pointer,
    direction_pointer,
    rows,
    length,
    TARGET: tl.constexpr,
    ONE_SIDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """nᵢ = ‖gᵢ‖, φ(nᵢ) and vᵢ = φ'(nᵢ) gᵢ / (B nᵢ).

    Args:
        gradient_pointer: ``(rows, length)``, contiguous.
        norm_pointer: ``(rows,)``, in the type to accumulate in.
        penalty_pointer: ``(rows,)``, the same type.
        direction_pointer: ``(rows, length)``, contiguous.
        rows: B.
        length: numbers per sample.
        TARGET: the norm at which φ is zero.
        ONE_SIDED: φ(n) = max(0, n − TARGET)² in place of (n − TARGET)².
        BLOCK: numbers per turn.
    """
    # One program owns one sample. It reads it twice; the second time it comes out of the cache.
    row = tl.program_id(0)
    start = row.to(tl.int64) * length  # a batch may hold more than 2³¹ numbers
    accumulate = norm_pointer.dtype.element_ty

    squares = tl.zeros((BLOCK,), accumulate)
    for first in range(0, length, BLOCK):
        column = first + tl.arange(0, BLOCK)
        gradient = tl.load(gradient_pointer + start + column, mask=column < length, other=0)
        gradient = gradient.to(accumulate)
        squares += gradient * gradient
    norm = tl.sqrt(tl.sum(squares))
    excess = _excess(norm, TARGET, ONE_SIDED)
    tl.store(norm_pointer + row, norm)
    tl.store(penalty_pointer + row, excess * excess)

    scale = _slope(norm, excess) / tl.cast(rows, accumulate)
    for first in range(0, length, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < length
        gradient = tl.load(gradient_pointer + start + column, mask=inside, other=0)
        tl.store(direction_pointer + start + column, scale * gradient.to(accumulate), mask=inside)


@triton.jit
def gradient_norm_penalty_backward_kernel(
    grad_norm_pointer,
    grad_penalty_pointer,
    grad_direction_pointer,
    gradient_pointer,
    norm_pointer,
    result_pointer,
    rows,
    length,
    TARGET: tl.constexpr,
    ONE_SIDED: tl.constexpr,
    HAS_DIRECTION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient in g of ⟨grad_norm, n⟩ + ⟨grad_penalty, φ⟩ + ⟨grad_direction, v⟩.

    With h(n) = φ'(n) / (B n), w = grad_direction, per sample:

        (grad_norm / n + grad_penalty φ'(n) / n) g + h(n) w + h'(n) / n ⟨g, w⟩ g

    Args:
        grad_norm_pointer: ``(rows,)``, in the type to accumulate in.
        grad_penalty_pointer: ``(rows,)``, the same type.
        grad_direction_pointer: ``(rows, length)``, contiguous; read if HAS_DIRECTION.
        gradient_pointer: ``(rows, length)``, contiguous.
        norm_pointer: ``(rows,)``, the forward's norms.
        result_pointer: ``(rows, length)``, contiguous.
        rows: B.
        length: numbers per sample.
        TARGET: as in the forward.
        ONE_SIDED: as in the forward.
        HAS_DIRECTION: whether v has a gradient.
        BLOCK: numbers per turn.
    """
    # One program owns one sample.
    row = tl.program_id(0)
    start = row.to(tl.int64) * length
    accumulate = norm_pointer.dtype.element_ty

    norm = tl.load(norm_pointer + row)
    excess = _excess(norm, TARGET, ONE_SIDED)
    slope = _slope(norm, excess)
    safe = tl.where(norm > 0, norm, 1)
    along = tl.load(grad_norm_pointer + row) / safe + tl.load(grad_penalty_pointer + row) * slope
    along = tl.where(norm > 0, along, 0)
    across = slope / tl.cast(rows, accumulate)

    if HAS_DIRECTION:
        products = tl.zeros((BLOCK,), accumulate)
        for first in range(0, length, BLOCK):
            column = first + tl.arange(0, BLOCK)
            inside = column < length
            gradient = tl.load(gradient_pointer + start + column, mask=inside, other=0)
            incoming = tl.load(grad_direction_pointer + start + column, mask=inside, other=0)
            products += gradient.to(accumulate) * incoming.to(accumulate)
        curvature = 2 * tl.full((), TARGET, accumulate) / (safe * safe * safe)
        curved = norm > 0
        if ONE_SIDED:
            curved = curved & (excess > 0)
        along += tl.where(curved, curvature * tl.sum(products) / tl.cast(rows, accumulate), 0)

    for first in range(0, length, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < length
        gradient = tl.load(gradient_pointer + start + column, mask=inside, other=0)
        result = along * gradient.to(accumulate)
        if HAS_DIRECTION:
            incoming = tl.load(grad_direction_pointer + start + column, mask=inside, other=0)
            result += across * incoming.to(accumulate)
        tl.store(result_pointer + start + column, result, mask=inside)


def _block(length: int) -> int:
    return min(LARGEST_BLOCK, triton.next_power_of_2(max(length, 1)))


def gradient_norm_penalty_rows(
    gradient: torch.Tensor,
    norm: torch.Tensor,
    penalty: torch.Tensor,
    direction: torch.Tensor,
    target: float,
    one_sided: bool,
) -> None:
    """Launch the forward on contiguous ``(B, D)`` rows; fills the other three tensors."""
    rows, length = gradient.shape
    if rows:
        gradient_norm_penalty_kernel[(rows,)](
            gradient,
            norm,
            penalty,
            direction,
            rows,
            length,
            TARGET=target,
            ONE_SIDED=one_sided,
            BLOCK=_block(length),
            enable_fp_fusion=True,  # Triton means to change its default
        )


def gradient_norm_penalty_backward_rows(
    grad_norm: torch.Tensor,
    grad_penalty: torch.Tensor,
    grad_direction: torch.Tensor | None,
    gradient: torch.Tensor,
    norm: torch.Tensor,
    result: torch.Tensor,
    target: float,
    one_sided: bool,
) -> None:
    """Launch the backward on contiguous ``(B, D)`` rows; fills ``result``."""
    rows, length = gradient.shape
    if rows:
        gradient_norm_penalty_backward_kernel[(rows,)](
            grad_norm,
            grad_penalty,
            gradient if grad_direction is None else grad_direction,
            gradient,
            norm,
            result,
            rows,
            length,
            TARGET=target,
            ONE_SIDED=one_sided,
            HAS_DIRECTION=grad_direction is not None,
            BLOCK=_block(length),
            enable_fp_fusion=True,  # Triton means to change its default
        )
