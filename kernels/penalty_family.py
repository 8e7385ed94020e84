"""What the kernels of the penalty share: the norms, φ and its derivatives, by compile-time options.

P stands for the norm: 1, 2, or INFINITY. A norm is known in parts: a total, which is a sum or a
maximum, and for the maximum how many numbers have it.
"""

import math

import triton
import triton.language as tl

INFINITY = 0


def phi_options(family: tuple[float, bool, float, float]) -> dict[str, float | bool]:
    """The kernels' options for (target, one-sided, power, p)."""
    target, one_sided, power, p = family
    return {
        "TARGET": target,
        "ONE_SIDED": one_sided,
        "POWER": int(power) if power % 1 == 0 else power,
        "P": INFINITY if math.isinf(p) else int(p),
    }


@triton.jit
def load_masked(
    pointer, mask_pointer, offset, inside, ACCUMULATE: tl.constexpr, HAS_MASK: tl.constexpr
):
    """The numbers at ``offset``, times the mask's, in the type to accumulate in."""
    numbers = tl.load(pointer + offset, mask=inside, other=0).to(ACCUMULATE)
    if HAS_MASK:
        numbers *= tl.load(mask_pointer + offset, mask=inside, other=0).to(ACCUMULATE)
    return numbers


@triton.jit
def store_masked(pointer, mask_pointer, offset, inside, numbers, HAS_MASK: tl.constexpr):
    """The numbers, times the mask's, to ``offset``."""
    if HAS_MASK:
        numbers *= tl.load(mask_pointer + offset, mask=inside, other=0).to(numbers.dtype)
    tl.store(pointer + offset, numbers, mask=inside)


@triton.jit
def part_of_row(program, length, parts, BLOCK: tl.constexpr):
    """(row, offset, whether it is inside the row) of the BLOCK numbers that a program owns."""
    row = program // parts
    column = (program % parts) * BLOCK + tl.arange(0, BLOCK)
    # A batch may hold more than 2³¹ numbers.
    return row, row.to(tl.int64) * length + column, column < length


@triton.jit
def part_of_norm(numbers, P: tl.constexpr):
    """(total, count) of a block; what lies outside of the row must be 0."""
    if P == 2:
        total = tl.sum(numbers * numbers)
    elif P == 1:
        total = tl.sum(tl.abs(numbers))
    else:
        total = largest_or_nan(tl.abs(numbers))
    count = tl.sum((tl.abs(numbers) == total).to(total.dtype)) if P == 0 else total
    return total, count


@triton.jit
def largest_or_nan(sizes):
    """The maximum; NaN if one of them is, which a maximum alone would lose."""
    nans = tl.sum((sizes != sizes).to(tl.int32))
    return tl.where(nans > 0, float("nan"), tl.max(sizes))


@triton.jit
def excess(norm, TARGET: tl.constexpr, ONE_SIDED: tl.constexpr):
    """How far the norm is from the target, or above it."""
    difference = norm - tl.full((), TARGET, norm.dtype)
    if ONE_SIDED:
        difference = tl.where(difference < 0, 0, difference)  # a maximum would lose NaN
    return difference


@triton.jit
def raised(size, EXPONENT: tl.constexpr):
    """size^EXPONENT for size ≥ 0; 0 at 0, but for the exponent 0."""
    if EXPONENT % 1 == 0 and EXPONENT >= 0:  # an int: see phi_options
        result = tl.full((), 1, size.dtype)
        for _ in tl.static_range(EXPONENT):
            result *= size
    else:
        exponent = tl.full((), EXPONENT, size.dtype)
        safe = tl.where(size == 0, 1, size)
        result = tl.where(size == 0, 0, tl.exp2(exponent * tl.log2(safe)))
    return result


@triton.jit
def phi_slope(norm, TARGET: tl.constexpr, ONE_SIDED: tl.constexpr, POWER: tl.constexpr):
    """φ'(n)."""
    difference = excess(norm, TARGET, ONE_SIDED)
    size = raised(tl.abs(difference), POWER - 1) * tl.full((), POWER, norm.dtype)
    signed = tl.where(difference < 0, -size, size)
    return tl.where(difference == 0, 0, signed)


@triton.jit
def phi_curvature(norm, TARGET: tl.constexpr, ONE_SIDED: tl.constexpr, POWER: tl.constexpr):
    """φ''(n); 0 where φ is flat or it is infinite."""
    difference = excess(norm, TARGET, ONE_SIDED)
    bent = raised(tl.abs(difference), POWER - 2) * tl.full((), POWER * (POWER - 1), norm.dtype)
    if ONE_SIDED:
        bent = tl.where(difference == 0, 0, bent)
    return bent


@triton.jit
def shared_factor(norm, count, P: tl.constexpr):
    """What all numbers of a row share in the norm's derivative; 0 where the norm is."""
    if P == 2:
        factor = 1 / tl.where(norm == 0, 1, norm)
    elif P == 1:
        factor = tl.full((), 1, norm.dtype)
    else:
        factor = 1 / tl.maximum(count, 1)  # NaN equals none
    return tl.where(norm == 0, 0, factor)


@triton.jit
def norm_slope(numbers, norm, P: tl.constexpr):
    """The rest of it: the number, its sign, or its sign where its size is the norm."""
    sign = (numbers > 0).to(numbers.dtype) - (numbers < 0).to(numbers.dtype)
    if P == 2:
        slope = numbers
    elif P == 1:
        slope = sign
    else:
        slope = tl.where(tl.abs(numbers) == norm, sign, 0)
    return slope
