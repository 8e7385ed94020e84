"""Convolutions whose kernel sees a whole image at once, as products of matrices.

A critic's last convolution makes one number of a map, a generator's first one a map of one vector.
Image and kernel have the same size, each pixel meets one weight: y = x Wᵀ with a row of x for each
image. oneDNN takes six to ten times as long for the critic's and three times for the generator's,
measured at 2 threads with maps of 4×4.
"""

from typing import Any

import torch
from torch import Tensor


def suits(shape: Any, weight: Tensor, rest: Any) -> bool:
    """Whether a convolution is such a one, where products are faster.

    Args:
        shape: of its input.
        weight: its kernels.
        rest: stride, padding, dilation, whether it is transposed, output padding, groups.
    """
    _, padding, dilation, transposed, output_padding, groups = rest
    inner = weight.shape[2:]
    steps = list(dilation) * (len(inner) // len(dilation))  # of one number, which counts for all
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.float64)
        and groups == 1
        and tuple(shape[2:]) == ((1,) * len(inner) if transposed else inner)
        and not any(padding)
        and not any(output_padding)
        and all(step == 1 or size == 1 for step, size in zip(steps, inner, strict=True))
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, rest: Any) -> Tensor:
    """The convolution, or the transposed one; ``rest`` as for :func:`suits`."""
    return (_spread if rest[3] else _gather)(x, weight, bias)


def gradients(
    delta: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    shape: Any,
    rest: Any,
    wanted: list[bool],
) -> list[Tensor | None]:
    """The gradients in input, weight and bias from the result's; ``wanted`` says which.

    A gradient that is an image lies in memory as the weight does, the weight's as the images do.

    Args:
        delta: the result's gradient.
        x: needed by the weight's.
        weight: needed by the input's.
        shape: of the input.
        rest: as for :func:`suits`.
        wanted: three flags.
    """
    transposed = rest[3]
    found: list[Tensor | None] = [None] * 3
    if wanted[0]:
        assert weight is not None
        found[0] = (_gather if transposed else _spread)(delta, weight)
    if wanted[1]:
        assert x is not None
        vectors, images = (x, delta) if transposed else (delta, x)
        last = _channels_last(images)
        sums = torch.mm(vectors.flatten(1).t(), _matrix(images, last))
        found[1] = _images(sums, images.shape, last)
    if wanted[2]:
        found[2] = delta.sum([axis for axis in range(delta.dim()) if axis != 1])
    return found


def _gather(images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, C, *sizes) and (M, C, *sizes) to (N, M, 1, ...), plus (M,)."""
    last = _channels_last(images)
    rows, kernels = _matrix(images, last), _matrix(weight, last).t()
    vectors = torch.mm(rows, kernels) if bias is None else torch.addmm(bias, rows, kernels)
    return vectors.view(*vectors.shape, *(1,) * (images.dim() - 2))


def _spread(vectors: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, M, 1, ...) and (M, C, *sizes) to (N, C, *sizes) in the weight's layout, plus (C,)."""
    last = _channels_last(weight)
    images = _images(torch.mm(vectors.flatten(1), _matrix(weight, last)), weight.shape, last)
    return images if bias is None else images.add_(bias.view(-1, *(1,) * (weight.dim() - 2)))


def _channels_last(tensor: Tensor) -> bool:
    if tensor.dim() != 4 or tensor.is_contiguous():
        return False
    return tensor.is_contiguous(memory_format=torch.channels_last)


def _matrix(tensor: Tensor, channels_last: bool) -> Tensor:
    """A row for each image; without a copy, if it lies in this order."""
    return (tensor.permute(0, 2, 3, 1) if channels_last else tensor).flatten(1)


def _images(matrix: Tensor, shape: torch.Size, channels_last: bool) -> Tensor:
    """What :func:`_matrix` undoes; ``shape`` is another batch's of such images."""
    if not channels_last:
        return matrix.view(-1, *shape[1:])
    return matrix.view(-1, *shape[2:], shape[1]).permute(0, 3, 1, 2)
