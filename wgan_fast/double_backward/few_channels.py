"""From many maps to an image of few channels: a transposed convolution as a product and col2im.

oneDNN has lanes for output channels, and an image of one or three leaves most of them empty: the
input gradient of a critic's first layer and a generator's last layer run at a twentieth of their
neighbours' speed. The product W^T Y has no such lanes, and where strides are at least 2, few of its
columns fall on each pixel. Measured at 2 threads: 4 times faster for one channel, 1.9 times for
three, slower from eight on or at stride 1.
"""

from typing import Any

import torch
from torch import Tensor

_CHANNELS, _OVERLAP = 4, 2


def suits(maps: Tensor, weight: Tensor, rest: Any) -> bool:
    """Whether to take this way; ``rest`` is convolution's stride, padding, ..., groups."""
    stride, groups = rest[0], rest[5]
    return (
        maps.dim() == 4
        and maps.device.type == "cpu"
        and maps.dtype in (torch.float32, torch.float64)
        and groups == 1
        and weight.shape[1] <= _CHANNELS
        and min(stride) >= _OVERLAP
    )


def spread(maps: Tensor, weight: Tensor, size: Any, rest: Any) -> Tensor:
    """The transposed convolution.

    Args:
        maps: (N, M, h, w).
        weight: (M, C, kernel height, kernel width).
        size: of the images.
        rest: stride, padding, dilation, ...

    Returns:
        Images, (N, C, *size).
    """
    stride, padding, dilation = rest[:3]
    columns = torch.matmul(weight.flatten(1).t(), maps.flatten(2))
    images = maps.new_empty(len(maps), weight.shape[1], *size)
    # Without memory to write to, it makes as much as the columns have, and keeps that.
    geometry = weight.shape[2:], dilation, padding, stride
    return torch.ops.aten.col2im.out(columns, size, *geometry, out=images)  # type: ignore[no-any-return]
