"""Sort, and the larger or smaller of two: the input's numbers in another order, chosen already."""

from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.rules.arithmetic import Elementwise
from wgan_fast.double_backward.rules.base import Rule, Tensors, plus

aten = torch.ops.aten


class Sorted(Rule):
    """Values along an axis in order, with their indices: a permutation."""

    name = "piecewise linear"
    fresh = True

    @staticmethod
    def axis(args: tuple[Any, ...]) -> int:
        return (args[1] if len(args) > 1 else -1) % args[0].dim()

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return self.axis(args) != 0

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        node.rows = [result[1]]
        node.kept = self.axis(args)

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        (indices,) = node.rows
        return [torch.empty_like(delta[0]).scatter(node.kept, indices, delta[0])]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        (indices,) = node.rows
        return [tangents[0].gather(node.kept, indices), None]


class Extremum(Elementwise):
    """The larger, or the smaller, of two numbers; where they are equal, both by half."""

    name = "piecewise linear"
    fresh = True

    def __init__(self, larger: bool) -> None:
        self.larger = larger

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        one, other = args
        chosen = one > other if self.larger else one < other
        node.rows = [chosen.to(result.dtype).masked_fill_(one == other, 0.5)]
        node.kept = self.described([one, other], result)

    @staticmethod
    def shares(node: Any) -> list[Tensor]:
        """∂y/∂a and ∂y/∂b, of the result's shape."""
        (share,) = node.rows
        return [share, 1 - share]

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        return [
            self.fitted(delta * share, operand) if want else None
            for share, operand, want in zip(self.shares(node), node.kept, wanted, strict=True)
        ]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        total = None
        for share, tangent in zip(self.shares(node), tangents, strict=True):
            if tangent is not None:
                total = plus(total, tangent * share)
        return total


RULES: dict[Any, Rule] = {
    aten.sort.default: Sorted(),
    aten.maximum.default: Extremum(larger=True),
    aten.minimum.default: Extremum(larger=False),
}
