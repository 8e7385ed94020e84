"""Real samples, fake samples and the points between them, written as one batch."""

import torch
import triton
import triton.language as tl

BLOCK = 2048


@triton.jit
def merged_batch_kernel(
    real_pointer,
    fake_pointer,
    alpha_pointer,
    output_pointer,
    length,
    blocks_per_row,
    part,
    BLOCK: tl.constexpr,
):
    """Write [realᵢ], [fakeᵢ] and [αᵢ realᵢ + (1 − αᵢ) fakeᵢ], each input read once.

    Args:
        real_pointer: ``(B, length)``, contiguous.
        fake_pointer: ``(B, length)``, contiguous.
        alpha_pointer: ``(B,)``, in the type to compute in.
        output_pointer: ``(3B, length)``, contiguous.
        length: numbers per sample.
        blocks_per_row: ``ceil(length / BLOCK)``.
        part: B times ``length``.
        BLOCK: numbers per program.
    """
    # One program owns BLOCK neighbouring numbers of one sample, in all three parts.
    program = tl.program_id(0)
    row = program // blocks_per_row
    column = (program % blocks_per_row) * BLOCK + tl.arange(0, BLOCK)
    inside = column < length
    start = row.to(tl.int64) * length  # a batch may hold more than 2³¹ numbers
    part = tl.cast(part, tl.int64)

    alpha = tl.load(alpha_pointer + row)
    real = tl.load(real_pointer + start + column, mask=inside)
    fake = tl.load(fake_pointer + start + column, mask=inside)
    mixed = alpha * real.to(alpha.dtype) + (1 - alpha) * fake.to(alpha.dtype)
    tl.store(output_pointer + start + column, real, mask=inside)
    tl.store(output_pointer + part + start + column, fake, mask=inside)
    tl.store(output_pointer + 2 * part + start + column, mixed, mask=inside)


def merged_batch_rows(
    real: torch.Tensor, fake: torch.Tensor, alpha: torch.Tensor, output: torch.Tensor
) -> None:
    """Launch :func:`merged_batch_kernel` on contiguous ``(B, D)`` rows; fills ``output``."""
    rows, length = real.shape
    blocks_per_row = triton.cdiv(length, BLOCK)
    if rows * blocks_per_row:
        merged_batch_kernel[(rows * blocks_per_row,)](
            real,
            fake,
            alpha,
            output,
            length,
            blocks_per_row,
            rows * length,
            BLOCK=BLOCK,
            enable_fp_fusion=True,  # Triton means to change its default
        )
