"""Second order of layer, group, instance and RMS norm.

γ̄ is summed over everything that shares an element of γ. A program sums the rows that it owns, in
their order, and writes that; PyTorch's sum takes the programs together. No atomics: the same
numbers in every run.
"""

import torch
import triton
import triton.language as tl

from .normalisation_tiles import Tiles, columns_of, gamma_of, normal_of, total_of

SUMS = 5


@triton.jit
def normalisation_second_sums_kernel(
    delta_pointer,
    tangent_pointer,
    x_pointer,
    mean_pointer,
    inverse_pointer,
    gamma_pointer,
    partial_pointer,
    length,
    runs,
    repeat,
    groups,
    pieces,
    tiles,
    CENTRED: tl.constexpr,
    HAS_GAMMA: tl.constexpr,
    SPLITS: tl.constexpr,
    RUNS: tl.constexpr,
    SPAN: tl.constexpr,
):
    """Σ t, Σ d, Σ x̂ t, Σ x̂ d and Σ d t of a part of a row, with d = γ Δ.

    Args:
        delta_pointer: ``(rows, length)``, contiguous.
        tangent_pointer: ``(rows, length)``, contiguous.
        x_pointer: ``(rows, length)``, contiguous.
        mean_pointer: ``(rows,)``; read if CENTRED.
        inverse_pointer: ``(rows,)``.
        gamma_pointer: ``(groups, runs)``; read if HAS_GAMMA.
        partial_pointer: ``(rows, 5, SPLITS)``.
        length: numbers per row.
        runs: elements of γ per row.
        repeat: numbers per element of γ.
        groups: row i belongs to group i mod ``groups``.
        pieces: tiles per run.
        tiles: tiles per row.
        CENTRED: whether the norm takes a mean.
        HAS_GAMMA: whether there is a γ.
        SPLITS: programs per row.
        RUNS: runs per tile.
        SPAN: numbers of each run per tile.
    """
    # One program owns every SPLITS-th part of a row's tiles.
    program = tl.program_id(0)
    row, split = program // SPLITS, program % SPLITS
    start = row.to(tl.int64) * length  # a batch may hold more than 2³¹ numbers
    inverse = tl.load(inverse_pointer + row)

    of_t = tl.zeros((RUNS, SPAN), inverse.dtype)
    of_d = tl.zeros((RUNS, SPAN), inverse.dtype)
    of_normal_t = tl.zeros((RUNS, SPAN), inverse.dtype)
    of_normal_d = tl.zeros((RUNS, SPAN), inverse.dtype)
    of_d_t = tl.zeros((RUNS, SPAN), inverse.dtype)
    for tile in range(tiles * split // SPLITS, tiles * (split + 1) // SPLITS):
        run, column, inside = columns_of(tile // pieces, tile % pieces, runs, repeat, RUNS, SPAN)
        d = tl.load(delta_pointer + start + column, mask=inside, other=0)
        t = tl.load(tangent_pointer + start + column, mask=inside, other=0)
        x = tl.load(x_pointer + start + column, mask=inside, other=0)
        d *= gamma_of(gamma_pointer, row % groups, run, runs, HAS_GAMMA)
        normal = normal_of(x, mean_pointer, inverse, row, CENTRED)
        of_t += t
        of_d += d
        of_normal_t += normal * t
        of_normal_d += normal * d
        of_d_t += d * t
    partial = partial_pointer + row.to(tl.int64) * (5 * SPLITS) + split
    tl.store(partial, tl.sum(of_t))
    tl.store(partial + SPLITS, tl.sum(of_d))
    tl.store(partial + 2 * SPLITS, tl.sum(of_normal_t))
    tl.store(partial + 3 * SPLITS, tl.sum(of_normal_d))
    tl.store(partial + 4 * SPLITS, tl.sum(of_d_t))


@triton.jit
def normalisation_second_kernel(
    delta_pointer,
    tangent_pointer,
    x_pointer,
    mean_pointer,
    inverse_pointer,
    gamma_pointer,
    partial_pointer,
    result_pointer,
    gamma_bar_pointer,
    length,
    runs,
    repeat,
    groups,
    pieces,
    tiles,
    samples,
    samples_per_program,
    CENTRED: tl.constexpr,
    HAS_GAMMA: tl.constexpr,
    SPLITS: tl.constexpr,
    RUNS: tl.constexpr,
    SPAN: tl.constexpr,
):
    """−r² [m(x̂ t) P(d) + m(x̂ d) P(t) + x̂ (m(d t) − m(d) m(t) − m(x̂ d) m(x̂ t))], and γ's Σ Δ r P(t).

    Args:
        delta_pointer: ``(rows, length)``, contiguous.
        tangent_pointer: ``(rows, length)``, contiguous.
        x_pointer: ``(rows, length)``, contiguous.
        mean_pointer: ``(rows,)``; read if CENTRED.
        inverse_pointer: ``(rows,)``.
        gamma_pointer: ``(groups, runs)``; read if HAS_GAMMA.
        partial_pointer: ``(rows, 5, SPLITS)``, the rows' sums; read if SPLITS.
        result_pointer: ``(rows, length)``, contiguous.
        gamma_bar_pointer: ``(ceil(samples / samples_per_program), pieces, groups, runs)``.
        length: numbers per row.
        runs: elements of γ per row.
        repeat: numbers per element of γ.
        groups: row i belongs to group i mod ``groups``.
        pieces: tiles per run.
        tiles: tiles per row.
        samples: rows per group.
        samples_per_program: how many of these a program owns.
        CENTRED: whether the norm takes a mean.
        HAS_GAMMA: whether there is a γ.
        SPLITS: 0 where the tile is the whole row.
        RUNS: runs per tile.
        SPAN: numbers of each run per tile.
    """
    # One program owns the same tile of some rows of one group.
    program = tl.program_id(0)
    tile, group = program % tiles, program // tiles % groups
    part = program // tiles // groups
    piece = tile % pieces
    run, column, inside = columns_of(tile // pieces, piece, runs, repeat, RUNS, SPAN)
    gamma = gamma_of(gamma_pointer, group, run, runs, HAS_GAMMA)
    share = 1 / tl.cast(length, inverse_pointer.dtype.element_ty)  # a length of 1 has no .to

    gamma_bar = tl.zeros((RUNS, SPAN), inverse_pointer.dtype.element_ty)
    first = part * samples_per_program
    for sample in range(first, min(first + samples_per_program, samples)):
        row = sample * groups + group
        start = tl.cast(row, tl.int64) * length
        inverse = tl.load(inverse_pointer + row)
        delta = tl.load(delta_pointer + start + column, mask=inside, other=0)
        t = tl.load(tangent_pointer + start + column, mask=inside, other=0)
        x = tl.load(x_pointer + start + column, mask=inside, other=0)
        normal = normal_of(x, mean_pointer, inverse, row, CENTRED)
        d = delta * gamma

        if SPLITS == 0:
            t_mean, d_mean = tl.sum(t), tl.sum(d)
            t_along, d_along = tl.sum(normal * t), tl.sum(normal * d)
            curl = tl.sum(d * t)
        else:
            partial = partial_pointer + tl.cast(row, tl.int64) * (5 * SPLITS)
            t_mean, d_mean = total_of(partial, 0, SPLITS), total_of(partial, 1, SPLITS)
            t_along, d_along = total_of(partial, 2, SPLITS), total_of(partial, 3, SPLITS)
            curl = total_of(partial, 4, SPLITS)
        t_along, d_along, curl = t_along * share, d_along * share, curl * share
        curl -= d_along * t_along
        if CENTRED:
            t_mean, d_mean = t_mean * share, d_mean * share
            curl -= d_mean * t_mean
            t -= t_mean
            d -= d_mean
        of_t = t - normal * t_along
        bar = t_along * (d - normal * d_along) + d_along * of_t + normal * curl
        tl.store(result_pointer + start + column, -(inverse * inverse) * bar, mask=inside)
        gamma_bar += delta * (inverse * of_t)

    own = ((part * pieces + piece).to(tl.int64) * groups + group) * runs
    tl.store(gamma_bar_pointer + own + run, tl.sum(gamma_bar, axis=1), mask=run < runs)


def normalisation_second_rows(
    delta: torch.Tensor,
    tangent: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor | None,
    inverse: torch.Tensor,
    gamma: torch.Tensor | None,
    result: torch.Tensor,
    groups: int,
    repeat: int,
) -> torch.Tensor:
    """Launch on contiguous ``(R, L)`` rows; fills ``result`` and returns γ̄ in γ's shape."""
    rows, length = x.shape
    if x.numel() == 0:
        return x.new_zeros(groups * (length // repeat))
    tiles = Tiles.of(x, repeat)
    splits = tiles.splits(rows)
    samples = rows // groups
    samples_per_program = tiles.samples_per_program(rows)
    parts = triton.cdiv(samples, samples_per_program)
    partial = x.new_empty(rows, SUMS, splits)
    gamma_bars = x.new_empty(parts * tiles.pieces, groups * tiles.runs)
    given = (
        delta, tangent, x, x if mean is None else mean, inverse, x if gamma is None else gamma,
        partial,
    )  # fmt: skip
    geometry = tiles.geometry(groups)
    constants = {
        "CENTRED": mean is not None,
        "HAS_GAMMA": gamma is not None,
        "SPLITS": splits,
        **tiles.options,
    }
    if splits:
        normalisation_second_sums_kernel[(rows * splits,)](*given, *geometry, **constants)
    normalisation_second_kernel[(parts * groups * tiles.count,)](
        *given, result, gamma_bars, *geometry, samples, samples_per_program, **constants
    )
    return gamma_bars.sum(0)
