"""Samples as rows: most operators see a batch as ``B`` runs of ``D`` numbers in memory."""

import torch
from torch import Tensor


def shared_layout(*tensors: Tensor) -> bool:
    """Whether each sample of each tensor is one run of memory, in the same order in all of them."""
    first = tensors[0]
    if any(other.stride() != first.stride() for other in tensors[1:]):
        return False
    if first.is_contiguous():
        return True
    channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(first.dim())
    return channels_last is not None and first.is_contiguous(memory_format=channels_last)


def memory_rows(tensor: Tensor) -> Tensor:
    """The ``(B, D)`` view, in memory order, of a tensor that has :func:`shared_layout`."""
    batch = tensor.shape[0]
    length = tensor.numel() // batch if batch else 0
    return tensor.as_strided((batch, length), (length, 1))


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` values shaped ``(B, 1, ..., 1)``, to broadcast against ``like``."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
