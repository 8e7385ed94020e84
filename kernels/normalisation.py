"""VJP and JVP of layer, group, instance and RMS norm: r P(γ u) and γ r P(u).

The formulas and the meaning of rows, groups and runs stand in ``ops/normalisation.py``.
"""

import torch
import triton
import triton.language as tl

from .normalisation_tiles import Tiles, columns_of, gamma_of, normal_of, total_of

SUMS = 2


@triton.jit
def normalisation_projected_sums_kernel(
    u_pointer,
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
    BEFORE: tl.constexpr,
    CENTRED: tl.constexpr,
    HAS_GAMMA: tl.constexpr,
    SPLITS: tl.constexpr,
    RUNS: tl.constexpr,
    SPAN: tl.constexpr,
):
    """Σ d and Σ x̂ d of a part of a row, with d = γ u if BEFORE, else u.

    Args:
        u_pointer: ``(rows, length)``, contiguous.
        x_pointer: ``(rows, length)``, contiguous.
        mean_pointer: ``(rows,)``; read if CENTRED.
        inverse_pointer: ``(rows,)``.
        gamma_pointer: ``(groups, runs)``; read if HAS_GAMMA.
        partial_pointer: ``(rows, 2, SPLITS)``.
        length: numbers per row.
        runs: elements of γ per row.
        repeat: numbers per element of γ.
        groups: row i belongs to group i mod ``groups``.
        pieces: tiles per run.
        tiles: tiles per row.
        BEFORE: whether γ is multiplied before the projection.
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

    sums = tl.zeros((RUNS, SPAN), inverse.dtype)
    alongs = tl.zeros((RUNS, SPAN), inverse.dtype)
    for tile in range(tiles * split // SPLITS, tiles * (split + 1) // SPLITS):
        run, column, inside = columns_of(tile // pieces, tile % pieces, runs, repeat, RUNS, SPAN)
        d = tl.load(u_pointer + start + column, mask=inside, other=0)
        x = tl.load(x_pointer + start + column, mask=inside, other=0)
        if BEFORE:
            d *= gamma_of(gamma_pointer, row % groups, run, runs, HAS_GAMMA)
        sums += d
        alongs += d * normal_of(x, mean_pointer, inverse, row, CENTRED)
    partial = partial_pointer + row.to(tl.int64) * (2 * SPLITS) + split
    tl.store(partial, tl.sum(sums))
    tl.store(partial + SPLITS, tl.sum(alongs))


@triton.jit
def normalisation_projected_kernel(
    u_pointer,
    x_pointer,
    mean_pointer,
    inverse_pointer,
    gamma_pointer,
    partial_pointer,
    result_pointer,
    length,
    runs,
    repeat,
    groups,
    pieces,
    tiles,
    BEFORE: tl.constexpr,
    CENTRED: tl.constexpr,
    HAS_GAMMA: tl.constexpr,
    SPLITS: tl.constexpr,
    RUNS: tl.constexpr,
    SPAN: tl.constexpr,
):
    """The VJP r P(γ u) if BEFORE, else the JVP γ r P(u).

    Args:
        u_pointer: ``(rows, length)``, contiguous.
        x_pointer: ``(rows, length)``, contiguous.
        mean_pointer: ``(rows,)``; read if CENTRED.
        inverse_pointer: ``(rows,)``.
        gamma_pointer: ``(groups, runs)``; read if HAS_GAMMA.
        partial_pointer: ``(rows, 2, SPLITS)``, the row's sums; read if SPLITS.
        result_pointer: ``(rows, length)``, contiguous.
        length: numbers per row.
        runs: elements of γ per row.
        repeat: numbers per element of γ.
        groups: row i belongs to group i mod ``groups``.
        pieces: tiles per run.
        tiles: tiles per row.
        BEFORE: whether γ is multiplied before the projection.
        CENTRED: whether the norm takes a mean.
        HAS_GAMMA: whether there is a γ.
        SPLITS: 0 where the tile is the whole row.
        RUNS: runs per tile.
        SPAN: numbers of each run per tile.
    """
    # One program owns one tile of one row, where it fits the whole row, read once.
    program = tl.program_id(0)
    row, tile = program // tiles, program % tiles
    start = row.to(tl.int64) * length
    inverse = tl.load(inverse_pointer + row)
    share = 1 / tl.cast(length, inverse.dtype)  # a length of 1 has no .to
    run, column, inside = columns_of(tile // pieces, tile % pieces, runs, repeat, RUNS, SPAN)
    gamma = gamma_of(gamma_pointer, row % groups, run, runs, HAS_GAMMA)
    d = tl.load(u_pointer + start + column, mask=inside, other=0)
    x = tl.load(x_pointer + start + column, mask=inside, other=0)
    normal = normal_of(x, mean_pointer, inverse, row, CENTRED)
    if BEFORE:
        d *= gamma

    if SPLITS == 0:
        total, along = tl.sum(d), tl.sum(d * normal)
    else:
        partial = partial_pointer + row.to(tl.int64) * (2 * SPLITS)
        total, along = total_of(partial, 0, SPLITS), total_of(partial, 1, SPLITS)
    projected = d - normal * (along * share)
    if CENTRED:
        projected -= total * share
    projected *= inverse
    if not BEFORE:
        projected *= gamma
    tl.store(result_pointer + start + column, projected, mask=inside)


def normalisation_projected_rows(
    u: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor | None,
    inverse: torch.Tensor,
    gamma: torch.Tensor | None,
    result: torch.Tensor,
    groups: int,
    repeat: int,
    before: bool,
) -> None:
    """Launch the VJP (``before``) or the JVP on contiguous ``(R, L)`` rows; fills ``result``."""
    rows = len(x)
    if x.numel() == 0:
        return
    tiles = Tiles.of(x, repeat)
    splits = tiles.splits(rows)
    partial = x.new_empty(rows, SUMS, splits)
    given = (u, x, x if mean is None else mean, inverse, x if gamma is None else gamma, partial)
    geometry = tiles.geometry(groups)
    constants = {
        "BEFORE": before,
        "CENTRED": mean is not None,
        "HAS_GAMMA": gamma is not None,
        "SPLITS": splits,
        **tiles.options,
    }
    if splits:
        normalisation_projected_sums_kernel[(rows * splits,)](*given, *geometry, **constants)
    normalisation_projected_kernel[(rows * tiles.count,)](*given, result, *geometry, **constants)
