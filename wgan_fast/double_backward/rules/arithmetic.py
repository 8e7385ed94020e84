"""Sums, products and quotients of two tensors, or of a tensor and a number, with broadcasting."""

from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.rules.base import (
    Rule,
    Tensors,
    elementwise_rows,
    is_rows,
    plus,
    sum_to,
)

aten = torch.ops.aten


class Elementwise(Rule):
    """What the ops here share: the operands' shapes, to undo a broadcast."""

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return elementwise_rows(args, result)

    @staticmethod
    def operands(args: tuple[Any, ...]) -> list[Tensor]:
        return [arg for arg in args if isinstance(arg, Tensor)]

    @staticmethod
    def fitted(cotangent: Tensor, operand: tuple[Any, ...]) -> Tensor:
        """A cotangent of the result's shape, summed to an operand's."""
        shape, rows, dtype = operand
        shape = (cotangent.shape[0], *shape[1:]) if rows else shape
        result = sum_to(cotangent, shape)
        return result if result.dtype == dtype else result.to(dtype)

    @staticmethod
    def described(operands: list[Tensor], result: Tensor) -> list[tuple[Any, ...]]:
        return [(operand.shape, is_rows(operand, result), operand.dtype) for operand in operands]


class Sum(Elementwise):
    """y = a ± alpha b."""

    name = "linear"
    in_place_safe = True

    def __init__(self, signs: tuple[int, int]) -> None:
        self.signs = signs

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        alpha = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
        factors = [
            sign * scale
            for arg, sign, scale in zip(args, self.signs, self._scales(alpha), strict=False)
            if isinstance(arg, Tensor)
        ]
        operands = self.described(self.operands(args[:2]), result)
        node.kept = (factors, operands, result.shape, result.dim() > 0)

    def _scales(self, alpha: float) -> tuple[float, float]:
        return (1, alpha)

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        factors, operands, *_ = node.kept
        return [
            self.fitted(delta if factor == 1 else delta * factor, operand) if want else None
            for factor, operand, want in zip(factors, operands, wanted, strict=True)
        ]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        factors, _, shape, _ = node.kept
        total = None
        for factor, tangent in zip(factors, tangents, strict=True):
            if tangent is not None:
                total = plus(total, tangent if factor == 1 else tangent * factor)
        assert total is not None
        if total.shape[1:] != shape[1:] or total.dim() != len(shape):
            rows = total.shape[0] if total.dim() == len(shape) and total.shape[0] > 1 else shape[0]
            total = total.expand((rows, *shape[1:]))
        return total


class ReversedSum(Sum):
    """y = b − alpha a."""

    def _scales(self, alpha: float) -> tuple[float, float]:
        return (alpha, 1)


class Product(Elementwise):
    """y = a b: bilinear where both are differentiable, linear where one is a constant."""

    name = "linear or bilinear"
    bilinear = True

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        operands = self.operands(args)
        if len(operands) == 1:  # times a number
            number = args[1] if isinstance(args[0], Tensor) else args[0]
            node.kept = (number, [], [None], self.described(operands, result))
            return
        a, b = operands
        # Each operand is the other one's factor.
        needed = [node.inputs[1] is not None, node.inputs[0] is not None]
        rows = [is_rows(operand, result) for operand in operands]
        node.rows = [
            t if need and row else None for t, need, row in zip((a, b), needed, rows, strict=True)
        ]
        fixed = [
            t if need and not row else None
            for t, need, row in zip((a, b), needed, rows, strict=True)
        ]
        node.kept = (None, fixed, needed, self.described(operands, result))

    def _factor(self, node: Any, position: int) -> Any:
        """What multiplies the other operand."""
        number, fixed, _, _ = node.kept
        if number is not None:
            return number
        row = node.rows[position]
        return fixed[position] if row is None else row

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        operands = node.kept[3]
        return [
            self.fitted(delta * self._factor(node, 1 - i), operands[i]) if want else None
            for i, want in enumerate(wanted)
        ]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        total = None
        for i, tangent in enumerate(tangents):
            if tangent is not None:
                total = plus(total, tangent * self._factor(node, 1 - i))
        return total

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        if len(tangents) == 1 or any(value is None for value in node.inputs):
            return None
        operands = node.kept[3]
        return [
            self.fitted(delta * tangents[1 - i], operands[i])
            if want and tangents[1 - i] is not None
            else None
            for i, want in enumerate(wanted)
        ]


class Quotient(Elementwise):
    """y = a / b, b a tensor or a number."""

    name = "linear or smooth"
    curved = True

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        operands = self.operands(args)
        if len(operands) == 1:
            node.kept = (args[1], None, self.described(operands, result))
            return
        below_rows = is_rows(args[1], result)
        node.rows = [args[1] if below_rows else None, result]
        node.kept = (None, None if below_rows else args[1], self.described(operands, result))

    def _below(self, node: Any) -> Any:
        number, fixed, _ = node.kept
        if number is not None:
            return number
        return node.rows[0] if fixed is None else fixed

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        operands = node.kept[2]
        upper = delta / self._below(node)
        result: Tensors = [self.fitted(upper, operands[0]) if wanted[0] else None]
        if len(wanted) > 1:
            result.append(self.fitted(-upper * node.rows[1], operands[1]) if wanted[1] else None)
        return result

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        total = tangents[0]
        if len(tangents) > 1 and tangents[1] is not None:
            total = plus(total, -node.rows[1] * tangents[1])
        return total / self._below(node)

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        if len(tangents) == 1 or node.inputs[1] is None:
            return None
        # ⟨Δ, t_a / b − a t_b / b²⟩
        operands = node.kept[2]
        below, result = self._below(node), node.rows[1]
        above_tangent, below_tangent = tangents
        scaled = delta / (below * below)
        above = -scaled * below_tangent if below_tangent is not None else None
        under = None
        if above_tangent is not None:
            under = -scaled * above_tangent
        if below_tangent is not None:
            under = plus(under, 2 * scaled * result * below_tangent)
        return [
            self.fitted(bar, operand) if want and bar is not None else None
            for bar, operand, want in zip((above, under), operands, wanted, strict=True)
        ]


class Copy(Elementwise):
    """copy(a, b): b in the shape and type of a, whose numbers do not matter."""

    name = "linear"
    in_place_safe = True

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        node.kept = (self.described([args[1]], result)[0], result.shape, result.dtype)

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        source = self.fitted(delta, node.kept[0]) if wanted[1] else None
        return [torch.zeros_like(delta) if wanted[0] else None, source]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        operand, shape, dtype = node.kept
        tangent = tangents[1]
        if tangent is None:
            return None
        rows = tangent.shape[0] if operand[1] else shape[0] if shape else 0
        return tangent.to(dtype).expand((rows, *shape[1:]) if shape else shape)


RULES: dict[Any, Rule] = {
    aten.add.Tensor: Sum((1, 1)),
    aten.add.Scalar: Sum((1, 1)),
    aten.sub.Tensor: Sum((1, -1)),
    aten.sub.Scalar: Sum((1, -1)),
    aten.rsub.Scalar: ReversedSum((-1, 1)),
    aten.rsub.Tensor: ReversedSum((-1, 1)),
    aten.mul.Tensor: Product(),
    aten.mul.Scalar: Product(),
    aten.div.Tensor: Quotient(),
    aten.div.Scalar: Quotient(),
    aten.copy.default: Copy(),
}
