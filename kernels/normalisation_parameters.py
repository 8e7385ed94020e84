"""The gradients of γ and β of layer, group, instance and RMS norm.

Summed without atomics, as γ̄ in ``normalisation_second.py``.
"""

import torch
import triton
import triton.language as tl

from .normalisation_tiles import Tiles, columns_of, normal_of


@triton.jit
def normalisation_parameters_kernel(
    delta_pointer,
    x_pointer,
    mean_pointer,
    inverse_pointer,
    bars_pointer,
    length,
    runs,
    repeat,
    groups,
    pieces,
    tiles,
    samples,
    samples_per_program,
    CENTRED: tl.constexpr,
    RUNS: tl.constexpr,
    SPAN: tl.constexpr,
):
    """γ̄ = Σ Δ x̂ and β̄ = Σ Δ.

    Args:
        delta_pointer: ``(rows, length)``, contiguous.
        x_pointer: ``(rows, length)``, contiguous.
        mean_pointer: ``(rows,)``; read if CENTRED.
        inverse_pointer: ``(rows,)``.
        bars_pointer: ``(ceil(samples / samples_per_program), pieces, 2, groups, runs)``.
        length: numbers per row.
        runs: elements of γ per row.
        repeat: numbers per element of γ.
        groups: row i belongs to group i mod ``groups``.
        pieces: tiles per run.
        tiles: tiles per row.
        samples: rows per group.
        samples_per_program: how many of these a program owns.
        CENTRED: whether the norm takes a mean.
        RUNS: runs per tile.
        SPAN: numbers of each run per tile.
    """
    # One program owns the same tile of some rows of one group.
    program = tl.program_id(0)
    tile, group = program % tiles, program // tiles % groups
    part = program // tiles // groups
    piece = tile % pieces
    run, column, inside = columns_of(tile // pieces, piece, runs, repeat, RUNS, SPAN)

    gamma_bar = tl.zeros((RUNS, SPAN), inverse_pointer.dtype.element_ty)
    beta_bar = tl.zeros((RUNS, SPAN), inverse_pointer.dtype.element_ty)
    first = part * samples_per_program
    for sample in range(first, min(first + samples_per_program, samples)):
        row = sample * groups + group
        start = tl.cast(row, tl.int64) * length  # a batch may hold more than 2³¹ numbers
        delta = tl.load(delta_pointer + start + column, mask=inside, other=0)
        x = tl.load(x_pointer + start + column, mask=inside, other=0)
        inverse = tl.load(inverse_pointer + row)
        gamma_bar += delta * normal_of(x, mean_pointer, inverse, row, CENTRED)
        beta_bar += delta

    own = (part * pieces + piece).to(tl.int64) * 2 * groups + group
    tl.store(bars_pointer + own * runs + run, tl.sum(gamma_bar, axis=1), mask=run < runs)
    own += groups
    tl.store(bars_pointer + own * runs + run, tl.sum(beta_bar, axis=1), mask=run < runs)


def normalisation_parameters_rows(
    delta: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor | None,
    inverse: torch.Tensor,
    groups: int,
    repeat: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch on contiguous ``(R, L)`` rows; returns γ's and β's ``(groups · L / repeat,)``."""
    rows, length = x.shape
    if x.numel() == 0:
        return x.new_zeros(groups * (length // repeat)), x.new_zeros(groups * (length // repeat))
    tiles = Tiles.of(x, repeat)
    samples = rows // groups
    samples_per_program = tiles.samples_per_program(rows)
    parts = triton.cdiv(samples, samples_per_program)
    bars = x.new_empty(parts * tiles.pieces, 2, groups * tiles.runs)
    normalisation_parameters_kernel[(parts * groups * tiles.count,)](
        delta,
        x,
        x if mean is None else mean,
        inverse,
        bars,
        *tiles.geometry(groups),
        samples,
        samples_per_program,
        CENTRED=mean is not None,
        **tiles.options,
    )
    gamma_bar, beta_bar = bars.sum(0)
    return gamma_bar, beta_bar
