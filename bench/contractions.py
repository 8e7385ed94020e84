"""The claim: the engine's products and convolutions take less time on a CPU than PyTorch's own.

The convolution is the second layer of the DCGAN critic for 3×32×32 and its 64 channels, on the
merged batch of 64; the products are those of a tabular critic's layer, on the merged batch of 500.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.harness.case import Case, Figure
from bench.harness.guards import runs_compiled
from wgan_fast.microkernel import PRODUCT

aten = torch.ops.aten

_SAMPLES, _CHANNELS, _MAPS, _SIZE = 192, 64, 128, 16
_ROWS, _WIDTH = 1500, 256
# Stride, padding, dilation, whether transposed, output padding, groups.
_REST: tuple[Any, ...] = [2, 2], [1, 1], [1, 1], False, [0, 0], 1


def _convolution(device: torch.device) -> list[Tensor]:
    """Images, kernels, bias and the result's gradient, channels_last."""
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (_SAMPLES, _CHANNELS, _SIZE, _SIZE),
        (_MAPS, _CHANNELS, 4, 4),
        (_SAMPLES, _MAPS, _SIZE // 2, _SIZE // 2),
    )
    images, weight, delta = (
        torch.randn(shape, generator=generator)
        .contiguous(memory_format=torch.channels_last)
        .to(device)
        for shape in shapes
    )
    return [images, weight, torch.randn(_MAPS, generator=generator).to(device), delta]


def _pulled(wanted: list[bool], problem: list[Tensor]) -> Tensor:
    images, weight, _, delta = problem
    gradients = aten.convolution_backward(delta, images, weight, [_MAPS], *_REST, wanted)
    return gradients[wanted.index(True)]  # type: ignore[no-any-return]


def _library(problem: list[Tensor]) -> Tensor:
    return aten.convolution(*problem[:3], *_REST)  # type: ignore[no-any-return]


def _gather(problem: list[Tensor]) -> Tensor:
    images, weight, bias, _ = problem
    return torch.ops.wgan_fast.winograd_gather(images, weight, bias, _REST[1])  # type: ignore[no-any-return]


def _spread(problem: list[Tensor]) -> Tensor:
    _, weight, _, delta = problem
    return torch.ops.wgan_fast.winograd_spread(delta, weight, [_SIZE, _SIZE], _REST[1])  # type: ignore[no-any-return]


def _of_weight(problem: list[Tensor]) -> Tensor:
    images, _, _, delta = problem
    return torch.ops.wgan_fast.winograd_weight(delta, images, _REST[1])  # type: ignore[no-any-return]


def _winograd(
    name: str, plain: Callable[[list[Tensor]], Tensor], fast: Callable[[list[Tensor]], Tensor]
) -> Case:
    return Case(
        name=f"operators/winograd_{name}",
        sizes=f"{_SAMPLES}×{_CHANNELS}×{_SIZE}×{_SIZE} to {_MAPS} maps, float32",
        problem=_convolution,
        sides={"oneDNN": plain, "wgan_fast": fast},
        figures=(Figure("wgan_fast", "speed-up", 1.0),),
        requires=(runs_compiled(f"winograd_{name}"),),
        must_call={"wgan_fast": (f"wgan_fast::winograd_{name}",)},
        tolerance=1e-4,
        devices=("cpu",),
    )


def _factors(device: torch.device) -> list[Tensor]:
    """A batch, a weight, the result's gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = (_ROWS, _WIDTH), (_WIDTH, _WIDTH), (_ROWS, _WIDTH)
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


def _layer(
    product: Callable[[Tensor, Tensor], Tensor], problem: list[Tensor]
) -> tuple[Tensor, ...]:
    """A linear layer's result and its two gradients."""
    x, weight, delta = problem
    return product(x, weight.t()), product(delta, weight), product(delta.t(), x)


CASES = (
    _winograd("gather", _library, _gather),
    _winograd("spread", partial(_pulled, [True, False, False]), _spread),
    _winograd("weight", partial(_pulled, [False, True, False]), _of_weight),
    Case(
        name="operators/product",
        sizes=f"{_ROWS}×{_WIDTH} by {_WIDTH}×{_WIDTH}, and the two gradients, float32",
        problem=_factors,
        sides={
            "torch.mm": partial(_layer, torch.mm),
            "wgan_fast": partial(_layer, PRODUCT),
        },
        figures=(Figure("wgan_fast", "speed-up", 1.0),),
        requires=(runs_compiled("product"),),
        must_call={"wgan_fast": ("wgan_fast::product",)},
        tolerance=1e-4,
        devices=("cpu",),
    ),
)
