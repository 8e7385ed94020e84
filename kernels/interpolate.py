"""Interpolation between real and fake samples, one α per sample."""

import torch
import triton
import triton.language as tl

BLOCK = 2048


@triton.jit
def interpolate_kernel(
    real_pointer,
    fake_pointer,
    alpha_pointer,
    output_pointer,
    length,
    blocks_per_row,
    BLOCK: tl.constexpr,
):
    """Write αᵢ realᵢ + (1 − αᵢ) fakeᵢ, each input read once, each output written once.

    Args:
        real_pointer: ``(B, length)``, contiguous.
        fake_pointer: ``(B, length)``, contiguous.
        alpha_pointer: ``(B,)``, in the type to compute in.
        output_pointer: ``(B, length)``, contiguous.
        length: numbers per sample.
        blocks_per_row: ``ceil(length / BLOCK)``.
        BLOCK: numbers per program.
    """
    # One program owns BLOCK neighbouring numbers of one sample.
    program = tl.program_id(0)
    row = program // blocks_per_row
    column = (program % blocks_per_row) * BLOCK + tl.arange(0, BLOCK)
    inside = column < length
    start = row.to(tl.int64) * length  # a batch may hold more than 2³¹ numbers

    alpha = tl.load(alpha_pointer + row)
    real = tl.load(real_pointer + start + column, mask=inside).to(alpha.dtype)
    fake = tl.load(fake_pointer + start + column, mask=inside).to(alpha.dtype)
    tl.store(output_pointer + start + column, alpha * real + (1 - alpha) * fake, mask=inside)


def interpolate_rows(
    real: torch.Tensor, fake: torch.Tensor, alpha: torch.Tensor, output: torch.Tensor
) -> None:
    """Launch :func:`interpolate_kernel` on contiguous ``(B, D)`` rows; fills ``output``."""
    rows, length = real.shape
    blocks_per_row = triton.cdiv(length, BLOCK)
    if rows * blocks_per_row:
        interpolate_kernel[(rows * blocks_per_row,)](
            real,
            fake,
            alpha,
            output,
            length,
            blocks_per_row,
            BLOCK=BLOCK,
            enable_fp_fusion=True,  # Triton means to change its default
        )
