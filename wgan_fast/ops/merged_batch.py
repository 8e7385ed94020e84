"""``wgan_fast::merged_batch``: real, fake and interpolated samples as the one batch they run in."""

import torch
from torch import Tensor

from wgan_fast.ops import registration
from wgan_fast.ops.interpolate import _plain as _plain_interpolate
from wgan_fast.ops.rows import memory_rows


def _empty(real: Tensor) -> Tensor:
    """Three times as many samples, in the memory format of ``real``."""
    shape = (3 * real.shape[0], *real.shape[1:])
    return torch.empty(
        shape, dtype=real.dtype, device=real.device, memory_format=_memory_format(real)
    )


def _memory_format(real: Tensor) -> torch.memory_format:
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(real.dim())
    if last is not None and not real.is_contiguous() and real.is_contiguous(memory_format=last):
        return last
    return torch.contiguous_format


def _plain(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    batch = _empty(real)
    for part, samples in zip(
        batch.chunk(3) if len(real) else (),
        (real, fake, _plain_interpolate(real, fake, alpha)),
        strict=False,
    ):
        part.copy_(samples)
    return batch


registration.define("merged_batch", "(Tensor real, Tensor fake, Tensor alpha) -> Tensor", _plain)


def _triton(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    from wgan_fast.kernels.merged_batch import merged_batch_rows

    batch = _empty(real)
    layout = _memory_format(real)
    runs = [memory_rows(samples.contiguous(memory_format=layout)) for samples in (real, fake)]
    merged_batch_rows(*runs, alpha.contiguous(), memory_rows(batch))
    return batch


registration.register_triton("merged_batch", _triton)


@torch.library.register_fake("wgan_fast::merged_batch")
def _fake(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    return _empty(real)


def merged_batch(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """[real, fake, α real + (1 − α) fake]: each input read once, each output written once.

    Args:
        real: ``(B, ...)``, float64, float32, bfloat16 or float16.
        fake: like ``real``.
        alpha: ``(B,)``, float64 for float64 samples, float32 for all others.

    Returns:
        ``(3B, ...)``, dtype and memory format of ``real``; the mix is computed in α's type and
        rounded once. Not differentiable: the engine's passes are all that is made of it.
    """
    return torch.ops.wgan_fast.merged_batch(real, fake, alpha)
