"""Per-sample gradient norm, penalty and direction.

A row that fits a block is read once. A longer one is taken by many programs: parts of its norm,
then one program per row that joins them, then the direction; in a fixed order, so that a result is
the same in every run.
"""

import torch
import triton
import triton.language as tl

from .penalty_family import (
    excess,
    largest_or_nan,
    load_masked,
    norm_slope,
    part_of_norm,
    part_of_row,
    phi_options,
    phi_slope,
    raised,
    shared_factor,
    store_masked,
)

LARGEST_BLOCK = 16384
PART = 8192


@triton.jit
def _finish(
    row, total, count, norm_pointer, penalty_pointer, weight_pointer, rows,
    TARGET: tl.constexpr, ONE_SIDED: tl.constexpr, POWER: tl.constexpr, P: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
):  # fmt: skip
    """Store a row's norm and penalty; returns the norm and the direction's factor."""
    norm = total
    if P == 2:
        norm = tl.sqrt(total)
    tl.store(norm_pointer + row, norm)
    tl.store(penalty_pointer + row, raised(tl.abs(excess(norm, TARGET, ONE_SIDED)), POWER))
    scale = phi_slope(norm, TARGET, ONE_SIDED, POWER) / tl.cast(rows, norm.dtype)
    if HAS_WEIGHTS:
        scale *= tl.load(weight_pointer + row)
    return norm, tl.where(norm == 0, 0, scale * shared_factor(norm, count, P))


@triton.jit
def gradient_norm_penalty_kernel(
    gradient_pointer,
    mask_pointer,
    weight_pointer,
    norm_pointer,
    penalty_pointer,
    direction_pointer,
    rows,
    length,
    TARGET: tl.constexpr,
    ONE_SIDED: tl.constexpr,
    POWER: tl.constexpr,
    P: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """nᵢ = ‖m gᵢ‖, φ(nᵢ) and vᵢ = wᵢ φ'(nᵢ) ∂nᵢ/∂gᵢ / B, for rows of one block.

    Args:
        gradient_pointer: ``(rows, length)``, contiguous.
        mask_pointer: ``(rows, length)``, contiguous, m; read if HAS_MASK.
        weight_pointer: ``(rows,)``, in the type to accumulate in, w; read if HAS_WEIGHTS.
        norm_pointer: ``(rows,)``, in the type to accumulate in.
        penalty_pointer: ``(rows,)``, the same type.
        direction_pointer: ``(rows, length)``, contiguous.
        rows: B.
        length: numbers per sample, at most BLOCK.
        TARGET: the norm at which φ is zero.
        ONE_SIDED: φ(n) = max(0, n − TARGET)^POWER in place of |n − TARGET|^POWER.
        POWER: of φ.
        P: 1, 2 or INFINITY.
        HAS_WEIGHTS: whether w is given.
        HAS_MASK: whether m is given.
        BLOCK: a power of two.
    """
    # One program owns one sample and holds it.
    row = tl.program_id(0)
    accumulate: tl.constexpr = norm_pointer.dtype.element_ty
    column = tl.arange(0, BLOCK)
    inside = column < length
    offset = row.to(tl.int64) * length + column  # a batch may hold more than 2³¹ numbers

    numbers = load_masked(gradient_pointer, mask_pointer, offset, inside, accumulate, HAS_MASK)
    total, count = part_of_norm(numbers, P)
    norm, scale = _finish(
        row, total, count, norm_pointer, penalty_pointer, weight_pointer, rows,
        TARGET, ONE_SIDED, POWER, P, HAS_WEIGHTS,
    )  # fmt: skip
    direction = scale * norm_slope(numbers, norm, P)
    store_masked(direction_pointer, mask_pointer, offset, inside, direction, HAS_MASK)


@triton.jit
def norm_parts_kernel(
    gradient_pointer,
    mask_pointer,
    total_pointer,
    count_pointer,
    length,
    parts,
    P: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The norm's parts of BLOCK numbers each.

    Args:
        gradient_pointer: ``(rows, length)``, contiguous.
        mask_pointer: ``(rows, length)``, contiguous; read if HAS_MASK.
        total_pointer: ``(rows, parts)``, in the type to accumulate in.
        count_pointer: ``(rows, parts)``, the same type; written for P = INFINITY.
        length: numbers per sample.
        parts: ``ceil(length / BLOCK)``.
        P: 1, 2 or INFINITY.
        HAS_MASK: whether m is given.
        BLOCK: numbers per part.
    """
    # One program owns one part of one sample.
    program = tl.program_id(0)
    accumulate: tl.constexpr = total_pointer.dtype.element_ty
    _, offset, inside = part_of_row(program, length, parts, BLOCK)
    numbers = load_masked(gradient_pointer, mask_pointer, offset, inside, accumulate, HAS_MASK)
    total, count = part_of_norm(numbers, P)
    tl.store(total_pointer + program, total)
    if P == 0:
        tl.store(count_pointer + program, count)


@triton.jit
def norm_finish_kernel(
    total_pointer,
    count_pointer,
    weight_pointer,
    norm_pointer,
    penalty_pointer,
    scale_pointer,
    rows,
    parts,
    TARGET: tl.constexpr,
    ONE_SIDED: tl.constexpr,
    POWER: tl.constexpr,
    P: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Norm, penalty and the direction's factor from the norm's parts.

    Args:
        total_pointer: ``(rows, parts)``, from :func:`norm_parts_kernel`.
        count_pointer: ``(rows, parts)``; read for P = INFINITY.
        weight_pointer: ``(rows,)``, w; read if HAS_WEIGHTS.
        norm_pointer: ``(rows,)``.
        penalty_pointer: ``(rows,)``.
        scale_pointer: ``(rows,)``.
        rows: B.
        parts: of a row, at most BLOCK.
        TARGET: as in the kernel of one block.
        ONE_SIDED: as there.
        POWER: as there.
        P: as there.
        HAS_WEIGHTS: whether w is given.
        BLOCK: a power of two.
    """
    # One program owns one sample.
    row = tl.program_id(0)
    place = tl.arange(0, BLOCK)
    offset = row.to(tl.int64) * parts + place
    totals = tl.load(total_pointer + offset, mask=place < parts, other=0)
    if P == 0:
        total = largest_or_nan(totals)
        counts = tl.load(count_pointer + offset, mask=place < parts, other=0)
        count = tl.sum(tl.where(totals == total, counts, 0))
    else:
        total = tl.sum(totals)
        count = total
    _, scale = _finish(
        row, total, count, norm_pointer, penalty_pointer, weight_pointer, rows,
        TARGET, ONE_SIDED, POWER, P, HAS_WEIGHTS,
    )  # fmt: skip
    tl.store(scale_pointer + row, scale)


@triton.jit
def direction_kernel(
    gradient_pointer,
    mask_pointer,
    norm_pointer,
    scale_pointer,
    direction_pointer,
    length,
    parts,
    P: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The direction, once its factors are known.

    Args:
        gradient_pointer: ``(rows, length)``, contiguous.
        mask_pointer: ``(rows, length)``, contiguous; read if HAS_MASK.
        norm_pointer: ``(rows,)``.
        scale_pointer: ``(rows,)``, from :func:`norm_finish_kernel`.
        direction_pointer: ``(rows, length)``, contiguous.
        length: numbers per sample.
        parts: ``ceil(length / BLOCK)``.
        P: 1, 2 or INFINITY.
        HAS_MASK: whether m is given.
        BLOCK: numbers per program.
    """
    # One program owns BLOCK neighbouring numbers of one sample.
    accumulate: tl.constexpr = norm_pointer.dtype.element_ty
    row, offset, inside = part_of_row(tl.program_id(0), length, parts, BLOCK)
    numbers = load_masked(gradient_pointer, mask_pointer, offset, inside, accumulate, HAS_MASK)
    direction = tl.load(scale_pointer + row) * norm_slope(numbers, tl.load(norm_pointer + row), P)
    store_masked(direction_pointer, mask_pointer, offset, inside, direction, HAS_MASK)


def warps_for(block: int, bytes_each: int) -> int:
    """64 bytes or more for a thread, 16 warps at most, which AMD's wavefronts allow too."""
    return max(1, min(16, block * bytes_each // 2048))


def gradient_norm_penalty_rows(
    gradient: torch.Tensor,
    norm: torch.Tensor,
    penalty: torch.Tensor,
    direction: torch.Tensor,
    family: tuple[float, bool, float, float],
    weights: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    largest_block: int = LARGEST_BLOCK,
) -> None:
    """Launch on contiguous ``(B, D)`` rows; fills ``norm``, ``penalty`` and ``direction``.

    ``family`` is (target, one-sided, power, p).
    """
    rows, length = gradient.shape
    if not rows:
        return
    phi = phi_options(family)
    by_row = {**phi, "HAS_WEIGHTS": weights is not None}
    by_number = {"P": phi["P"], "HAS_MASK": mask is not None}
    # Registers hold half as many numbers of twice the size, or with a mask's beside them.
    held = largest_block * 4 // norm.element_size() // (1 if mask is None else 2)
    # A pointer that is not read must still be one.
    weights = norm if weights is None else weights
    mask = gradient if mask is None else mask
    fused = {"enable_fp_fusion": True}  # Triton means to change its default

    block = triton.next_power_of_2(max(length, 1))
    if block <= held:
        gradient_norm_penalty_kernel[(rows,)](
            gradient, mask, weights, norm, penalty, direction, rows, length,
            **by_row, HAS_MASK=by_number["HAS_MASK"], BLOCK=block,
            num_warps=warps_for(block, norm.element_size()), **fused,
        )  # fmt: skip
        return
    parts = triton.cdiv(length, PART)
    totals, counts = norm.new_empty(2, rows, parts).unbind()
    scale = torch.empty_like(norm)
    grid, warps = (rows * parts,), warps_for(PART, norm.element_size())
    norm_parts_kernel[grid](
        gradient, mask, totals, counts, length, parts, **by_number, BLOCK=PART,
        num_warps=warps, **fused,
    )  # fmt: skip
    norm_finish_kernel[(rows,)](
        totals, counts, weights, norm, penalty, scale, rows, parts,
        **by_row, BLOCK=triton.next_power_of_2(parts), **fused,
    )  # fmt: skip
    direction_kernel[grid](
        gradient, mask, norm, scale, direction, length, parts, **by_number, BLOCK=PART,
        num_warps=warps, **fused,
    )  # fmt: skip
