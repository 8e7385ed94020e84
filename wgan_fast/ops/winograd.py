"""``wgan_fast::winograd_*``: 4×4 convolutions of stride 2 with 9/16 of the multiplications."""

from typing import Any

import torch
from torch import Tensor

from wgan_fast.ops import registration

aten = torch.ops.aten

_KERNEL, _STRIDE = (4, 4), (2, 2)


def _rest(padding: Any) -> tuple[Any, ...]:
    """Convolution's arguments after the bias."""
    return _STRIDE, padding, (1, 1), False, (0, 0), 1


def _pulled(maps: Tensor, images: Tensor, weight: Tensor, padding: Any, wanted: list[bool]) -> Any:
    return aten.convolution_backward(maps, images, weight, None, *_rest(padding), wanted)


def _plain_gather(images: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
    return _last(aten.convolution(images, weight, bias, *_rest(padding)))


def _plain_spread(maps: Tensor, weight: Tensor, size: Any, padding: Any) -> Tensor:
    images = maps.new_empty(1).expand(len(maps), weight.shape[1], *size)
    return _last(_pulled(maps, images, weight, padding, [True, False, False])[0])


def _plain_weight(maps: Tensor, images: Tensor, padding: Any) -> Tensor:
    weight = maps.new_empty(1).expand(maps.shape[1], images.shape[1], *_KERNEL)
    return _last(_pulled(maps, images, weight, padding, [False, True, False])[1])


def _last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


registration.define(
    "winograd_gather",
    "(Tensor images, Tensor weight, Tensor? bias, int[2] padding) -> Tensor",
    _plain_gather,
)
registration.define(
    "winograd_spread",
    "(Tensor maps, Tensor weight, int[2] size, int[2] padding) -> Tensor",
    _plain_spread,
)
registration.define(
    "winograd_weight", "(Tensor maps, Tensor images, int[2] padding) -> Tensor", _plain_weight
)


def _new(like: Tensor, *shape: Any) -> Tensor:
    return like.new_empty(shape).to(memory_format=torch.channels_last)


@torch.library.register_fake("wgan_fast::winograd_gather")
def _fake_gather(images: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
    sizes = [
        (size + 2 * added - 4) // 2 + 1
        for size, added in zip(images.shape[2:], padding, strict=True)
    ]
    return _new(images, len(images), len(weight), *sizes)


@torch.library.register_fake("wgan_fast::winograd_spread")
def _fake_spread(maps: Tensor, weight: Tensor, size: Any, padding: Any) -> Tensor:
    return _new(maps, len(maps), weight.shape[1], *size)


@torch.library.register_fake("wgan_fast::winograd_weight")
def _fake_weight(maps: Tensor, images: Tensor, padding: Any) -> Tensor:
    return _new(maps, maps.shape[1], images.shape[1], *_KERNEL)
