"""The backward of norm, penalty and direction; rows in one block, or in parts, as the forward."""

import torch
import triton
import triton.language as tl

from .gradient_norm_penalty import PART, warps_for
from .penalty_family import (
    INFINITY,
    load_masked,
    norm_slope,
    part_of_row,
    phi_curvature,
    phi_options,
    phi_slope,
    shared_factor,
    store_masked,
)

LARGEST_BLOCK = 8192


@triton.jit
def _coefficients(
    row, inner, count, grad_norm_pointer, grad_penalty_pointer, norm_pointer, weight_pointer, rows,
    TARGET: tl.constexpr, ONE_SIDED: tl.constexpr, POWER: tl.constexpr, P: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr, HAS_DIRECTION: tl.constexpr,
):  # fmt: skip
    """The factors of the norm's slope and of the direction's gradient in a row's result."""
    norm = tl.load(norm_pointer + row)
    slope = phi_slope(norm, TARGET, ONE_SIDED, POWER)
    factor = shared_factor(norm, count, P)
    along = tl.load(grad_norm_pointer + row) + tl.load(grad_penalty_pointer + row) * slope
    across = tl.full((), 0, norm.dtype)
    if HAS_DIRECTION:
        share = 1 / tl.cast(rows, norm.dtype)
        if HAS_WEIGHTS:
            share *= tl.load(weight_pointer + row)
        bend = phi_curvature(norm, TARGET, ONE_SIDED, POWER)
        if P == 2:  # the unit vector itself turns with the gradient
            turning = slope * factor
            bend -= turning
            across = share * turning
            if TARGET == 0 and POWER == 2:  # the direction is linear in the gradient, also at zero
                across = 2 * share
        along += share * bend * factor * inner
    if TARGET != 0 or POWER != 2:
        across = tl.where(norm == 0, 0, across)
    return norm, tl.where(norm == 0, 0, along * factor), across


@triton.jit
def _inner(numbers, incoming, norm, P: tl.constexpr):
    """(⟨slope, d⟩, how many numbers are the largest) of a block."""
    inner = tl.sum(norm_slope(numbers, norm, P) * incoming)
    count = tl.sum((tl.abs(numbers) == norm).to(norm.dtype)) if P == 0 else inner
    return inner, count


@triton.jit
def _store(
    numbers, incoming, norm, along, across, mask_pointer, result_pointer, offset, inside,
    P: tl.constexpr, HAS_MASK: tl.constexpr, HAS_DIRECTION: tl.constexpr,
):  # fmt: skip
    result = along * norm_slope(numbers, norm, P)
    if HAS_DIRECTION and P == 2:
        # Not a product with zero: an infinite d must not become NaN where the norm is zero.
        result += tl.where(across == 0, 0, across * incoming)
    store_masked(result_pointer, mask_pointer, offset, inside, result, HAS_MASK)


@triton.jit
def gradient_norm_penalty_backward_kernel(
    grad_norm_pointer,
    grad_penalty_pointer,
    grad_direction_pointer,
    gradient_pointer,
    mask_pointer,
    weight_pointer,
    norm_pointer,
    result_pointer,
    rows,
    length,
    TARGET: tl.constexpr,
    ONE_SIDED: tl.constexpr,
    POWER: tl.constexpr,
    P: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_DIRECTION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient in g of ⟨grad_norm, n⟩ + ⟨grad_penalty, φ⟩ + ⟨d, v⟩, for rows of one block.

    With u = ∂n/∂(m g), s = w / B, and t = φ'(n) / n for P = 2 and 0 otherwise, per sample:

        m ([grad_norm + grad_penalty φ'(n) + s (φ''(n) − t) ⟨u, m d⟩] u + s t m d)

    Args:
        grad_norm_pointer: ``(rows,)``, in the type to accumulate in.
        grad_penalty_pointer: ``(rows,)``, the same type.
        grad_direction_pointer: ``(rows, length)``, contiguous, d; read if HAS_DIRECTION.
        gradient_pointer: ``(rows, length)``, contiguous.
        mask_pointer: ``(rows, length)``, contiguous, m; read if HAS_MASK.
        weight_pointer: ``(rows,)``, w; read if HAS_WEIGHTS.
        norm_pointer: ``(rows,)``, the forward's norms.
        result_pointer: ``(rows, length)``, contiguous.
        rows: B.
        length: numbers per sample, at most BLOCK.
        TARGET: as in the forward.
        ONE_SIDED: as in the forward.
        POWER: as in the forward.
        P: as in the forward.
        HAS_WEIGHTS: whether w is given.
        HAS_MASK: whether m is given.
        HAS_DIRECTION: whether v has a gradient.
        BLOCK: a power of two.
    """
    # One program owns one sample and holds it.
    row = tl.program_id(0)
    accumulate: tl.constexpr = norm_pointer.dtype.element_ty
    column = tl.arange(0, BLOCK)
    inside = column < length
    offset = row.to(tl.int64) * length + column

    numbers = load_masked(gradient_pointer, mask_pointer, offset, inside, accumulate, HAS_MASK)
    incoming = numbers
    inner = tl.full((), 0, accumulate)
    count = inner
    if HAS_DIRECTION:
        incoming = load_masked(
            grad_direction_pointer, mask_pointer, offset, inside, accumulate, HAS_MASK
        )
    if HAS_DIRECTION or P == 0:
        inner, count = _inner(numbers, incoming, tl.load(norm_pointer + row), P)
    norm, along, across = _coefficients(
        row, inner, count, grad_norm_pointer, grad_penalty_pointer, norm_pointer, weight_pointer,
        rows, TARGET, ONE_SIDED, POWER, P, HAS_WEIGHTS, HAS_DIRECTION,
    )  # fmt: skip
    _store(
        numbers, incoming, norm, along, across, mask_pointer, result_pointer, offset, inside,
        P, HAS_MASK, HAS_DIRECTION,
    )  # fmt: skip


@triton.jit
def inner_parts_kernel(
    grad_direction_pointer,
    gradient_pointer,
    mask_pointer,
    norm_pointer,
    inner_pointer,
    count_pointer,
    length,
    parts,
    P: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """⟨slope, m d⟩ over BLOCK numbers each, and how many of them are the largest.

    Args:
        grad_direction_pointer: ``(rows, length)``, contiguous, d.
        gradient_pointer: ``(rows, length)``, contiguous.
        mask_pointer: ``(rows, length)``, contiguous; read if HAS_MASK.
        norm_pointer: ``(rows,)``.
        inner_pointer: ``(rows, parts)``, in the type to accumulate in.
        count_pointer: ``(rows, parts)``, the same type; written for P = INFINITY.
        length: numbers per sample.
        parts: ``ceil(length / BLOCK)``.
        P: 1, 2 or INFINITY.
        HAS_MASK: whether m is given.
        BLOCK: numbers per part.
    """
    # One program owns one part of one sample.
    program = tl.program_id(0)
    accumulate: tl.constexpr = norm_pointer.dtype.element_ty
    row, offset, inside = part_of_row(program, length, parts, BLOCK)
    numbers = load_masked(gradient_pointer, mask_pointer, offset, inside, accumulate, HAS_MASK)
    incoming = load_masked(
        grad_direction_pointer, mask_pointer, offset, inside, accumulate, HAS_MASK
    )
    inner, count = _inner(numbers, incoming, tl.load(norm_pointer + row), P)
    tl.store(inner_pointer + program, inner)
    if P == 0:
        tl.store(count_pointer + program, count)


@triton.jit
def inner_finish_kernel(
    inner_pointer,
    count_pointer,
    grad_norm_pointer,
    grad_penalty_pointer,
    weight_pointer,
    norm_pointer,
    along_pointer,
    across_pointer,
    rows,
    parts,
    TARGET: tl.constexpr,
    ONE_SIDED: tl.constexpr,
    POWER: tl.constexpr,
    P: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    HAS_DIRECTION: tl.constexpr,
    HAS_PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row's two factors from its parts.

    Args:
        inner_pointer: ``(rows, parts)``, from :func:`inner_parts_kernel`; read if HAS_PARTS.
        count_pointer: ``(rows, parts)``, the same.
        grad_norm_pointer: ``(rows,)``.
        grad_penalty_pointer: ``(rows,)``.
        weight_pointer: ``(rows,)``, w; read if HAS_WEIGHTS.
        norm_pointer: ``(rows,)``.
        along_pointer: ``(rows,)``, the factor of the norm's slope.
        across_pointer: ``(rows,)``, the factor of the direction's gradient.
        rows: B.
        parts: of a row, at most BLOCK.
        TARGET: as in the forward.
        ONE_SIDED: as in the forward.
        POWER: as in the forward.
        P: as in the forward.
        HAS_WEIGHTS: whether w is given.
        HAS_DIRECTION: whether v has a gradient.
        HAS_PARTS: whether the parts were computed.
        BLOCK: a power of two.
    """
    # One program owns one sample.
    row = tl.program_id(0)
    inner = tl.full((), 0, norm_pointer.dtype.element_ty)
    count = inner
    if HAS_PARTS:
        place = tl.arange(0, BLOCK)
        offset = row.to(tl.int64) * parts + place
        inner = tl.sum(tl.load(inner_pointer + offset, mask=place < parts, other=0))
        if P == 0:
            count = tl.sum(tl.load(count_pointer + offset, mask=place < parts, other=0))
    _, along, across = _coefficients(
        row, inner, count, grad_norm_pointer, grad_penalty_pointer, norm_pointer, weight_pointer,
        rows, TARGET, ONE_SIDED, POWER, P, HAS_WEIGHTS, HAS_DIRECTION,
    )  # fmt: skip
    tl.store(along_pointer + row, along)
    tl.store(across_pointer + row, across)


@triton.jit
def backward_store_kernel(
    grad_direction_pointer,
    gradient_pointer,
    mask_pointer,
    norm_pointer,
    along_pointer,
    across_pointer,
    result_pointer,
    length,
    parts,
    P: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_DIRECTION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The result, once a row's two factors are known.

    Args:
        grad_direction_pointer: ``(rows, length)``, contiguous; read if HAS_DIRECTION.
        gradient_pointer: ``(rows, length)``, contiguous.
        mask_pointer: ``(rows, length)``, contiguous; read if HAS_MASK.
        norm_pointer: ``(rows,)``.
        along_pointer: ``(rows,)``, from :func:`inner_finish_kernel`.
        across_pointer: ``(rows,)``, the same.
        result_pointer: ``(rows, length)``, contiguous.
        length: numbers per sample.
        parts: ``ceil(length / BLOCK)``.
        P: 1, 2 or INFINITY.
        HAS_MASK: whether m is given.
        HAS_DIRECTION: whether v has a gradient.
        BLOCK: numbers per program.
    """
    # One program owns BLOCK neighbouring numbers of one sample.
    accumulate: tl.constexpr = norm_pointer.dtype.element_ty
    row, offset, inside = part_of_row(tl.program_id(0), length, parts, BLOCK)
    numbers = load_masked(gradient_pointer, mask_pointer, offset, inside, accumulate, HAS_MASK)
    incoming = numbers
    if HAS_DIRECTION and P == 2:
        incoming = load_masked(
            grad_direction_pointer, mask_pointer, offset, inside, accumulate, HAS_MASK
        )
    _store(
        numbers, incoming, tl.load(norm_pointer + row), tl.load(along_pointer + row),
        tl.load(across_pointer + row), mask_pointer, result_pointer, offset, inside,
        P, HAS_MASK, HAS_DIRECTION,
    )  # fmt: skip


def gradient_norm_penalty_backward_rows(
    grad_norm: torch.Tensor,
    grad_penalty: torch.Tensor,
    grad_direction: torch.Tensor | None,
    gradient: torch.Tensor,
    norm: torch.Tensor,
    result: torch.Tensor,
    family: tuple[float, bool, float, float],
    weights: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    largest_block: int = LARGEST_BLOCK,
) -> None:
    """Launch on contiguous ``(B, D)`` rows; fills ``result``.

    ``family`` is (target, one-sided, power, p).
    """
    rows, length = gradient.shape
    if not rows:
        return
    phi = phi_options(family)
    given = grad_direction is not None
    by_row = {**phi, "HAS_WEIGHTS": weights is not None, "HAS_DIRECTION": given}
    by_number = {"P": phi["P"], "HAS_MASK": mask is not None}
    # A pointer that is not read must still be one.
    weights = norm if weights is None else weights
    mask = gradient if mask is None else mask
    incoming = gradient if grad_direction is None else grad_direction
    fused = {"enable_fp_fusion": True}  # Triton means to change its default

    block = triton.next_power_of_2(max(length, 1))
    if block <= largest_block // (2 if norm.dtype == torch.float64 else 1):
        gradient_norm_penalty_backward_kernel[(rows,)](
            grad_norm, grad_penalty, incoming, gradient, mask, weights, norm, result, rows, length,
            **by_row, HAS_MASK=by_number["HAS_MASK"], BLOCK=block,
            num_warps=warps_for(block, norm.element_size()), **fused,
        )  # fmt: skip
        return
    parts = triton.cdiv(length, PART)
    inner, counts = norm.new_empty(2, rows, parts).unbind()
    along, across = torch.empty_like(norm), torch.empty_like(norm)
    grid, warps = (rows * parts,), warps_for(PART, norm.element_size())
    has_parts = given or phi["P"] == INFINITY
    if has_parts:
        inner_parts_kernel[grid](
            incoming, gradient, mask, norm, inner, counts, length, parts, **by_number, BLOCK=PART,
            num_warps=warps, **fused,
        )  # fmt: skip
    inner_finish_kernel[(rows,)](
        inner, counts, grad_norm, grad_penalty, weights, norm, along, across, rows, parts,
        **by_row, HAS_PARTS=has_parts, BLOCK=triton.next_power_of_2(parts), **fused,
    )  # fmt: skip
    backward_store_kernel[grid](
        incoming, gradient, mask, norm, along, across, result, length, parts,
        **by_number, HAS_DIRECTION=given, BLOCK=PART, num_warps=warps, **fused,
    )  # fmt: skip
