"""Max pooling: a selection of the input's numbers, fixed once the forward has chosen."""

from collections.abc import Callable
from typing import Any

import torch

from wgan_fast.double_backward.rules.base import Rule, Tensors

aten = torch.ops.aten


class MaxPool(Rule):
    """y = x at the chosen indices, which run over the flattened spatial axes."""

    name = "piecewise linear"
    fresh = True

    def __init__(self, spatial: int) -> None:
        self.spatial = spatial

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return args[0].dim() == self.spatial + 2

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        node.rows = [result[1]]
        node.kept = args[0].shape

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        delta = delta[0]
        (indices,) = node.rows
        lead = delta.dim() - self.spatial
        shape = (*delta.shape[:lead], *node.kept[lead:])
        flat = delta.new_zeros(
            (
                *delta.shape[:lead],
                shape[lead:].numel()
                if isinstance(shape, torch.Size)
                else torch.Size(shape[lead:]).numel(),
            )
        )
        flat.scatter_add_(lead, indices.flatten(lead), delta.flatten(lead))
        return [flat.view(shape)]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        (indices,) = node.rows
        (tangent,) = tangents
        assert tangent is not None
        lead = tangent.dim() - self.spatial
        return [tangent.flatten(lead).gather(lead, indices.flatten(lead)).view(indices.shape), None]


class Chosen(Rule):
    """max or min along an axis, with its index: a selection too."""

    name = "piecewise linear"

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return args[1] % args[0].dim() != 0

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        axis, keepdim = args[1] % args[0].dim(), len(args) > 2 and args[2]
        node.rows = [result[1]]
        node.kept = (axis, keepdim, args[0].shape)

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        axis, keepdim, shape = node.kept
        delta, (indices,) = delta[0], node.rows
        if not keepdim:
            delta, indices = delta.unsqueeze(axis), indices.unsqueeze(axis)
        rows = delta.shape[0] if axis else shape[0]
        return [delta.new_zeros((rows, *shape[1:])).scatter(axis, indices, delta)]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        axis, keepdim, _ = node.kept
        (indices,) = node.rows
        (tangent,) = tangents
        assert tangent is not None
        if keepdim:
            return [tangent.gather(axis, indices), None]
        return [tangent.gather(axis, indices.unsqueeze(axis)).squeeze(axis), None]


Factory = Callable[[], Rule]

RULES: dict[Any, Rule] = {
    aten.max_pool2d_with_indices.default: MaxPool(2),
    aten.max_pool3d_with_indices.default: MaxPool(3),
    aten.adaptive_max_pool2d.default: MaxPool(2),
    aten.adaptive_max_pool3d.default: MaxPool(3),
    aten.max.dim: Chosen(),
    aten.min.dim: Chosen(),
}
