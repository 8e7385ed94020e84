"""Matrix products and convolutions: bilinear in an activation and a weight, or in two activations.

With y = a · b (+ bias), each operand's cotangent needs the other operand, the tangent is
t_a · b + a · t_b, and the second-order term is the cotangent formula with a tangent in the place of
an operand. So a rule is three functions: the product and its two transposes.
"""

from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward import few_channels
from wgan_fast.double_backward.convolutions import way_of
from wgan_fast.double_backward.marks import carries_samples
from wgan_fast.double_backward.rules.base import Rule, Tensors, Times, plus, sum_to

aten = torch.ops.aten


class Bilinear(Rule):
    """y = a · b + bias; ``positions`` say where a, b and bias stand among the op's tensors."""

    name = "bilinear"
    fresh = True
    bilinear = True
    positions: tuple[int, int, int | None] = (0, 1, None)

    def product(self, node: Any, a: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError

    def to_a(self, node: Any, delta: Tensor, b: Tensor, a_shape: Any) -> Tensor:
        raise NotImplementedError

    def to_b(self, node: Any, delta: Tensor, a: Tensor) -> Tensor:
        raise NotImplementedError

    def to_bias(self, node: Any, delta: Tensor) -> Tensor:
        raise NotImplementedError

    def rest(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The arguments that are no tensors."""
        return None

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        a, b, bias = self.positions
        per_sample = args[a].dim() > 0 and result.shape[0] == args[a].shape[0]
        others = [args[b]] if bias is None or len(args) <= bias else [args[b], args[bias]]
        return per_sample and not any(
            isinstance(other, Tensor) and carries_samples(other) for other in others
        )

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        at_a, at_b, at_bias = self.positions
        a, b = args[at_a], args[at_b]
        b_is_rows = self.b_is_rows
        keep_a = a if node.inputs[at_b] is not None else None
        keep_b = b if node.inputs[at_a] is not None else None
        node.rows = [keep_a, keep_b if b_is_rows else None]
        bias = None if at_bias is None or len(node.inputs) <= at_bias else args[at_bias]
        node.kept = (
            None if b_is_rows else keep_b,
            a.shape,
            self.rest(args, kwargs),
            (None if bias is None else bias.shape),
            b,
        )

    b_is_rows = False

    def forget(self, node: Any) -> None:
        # Without a third pass, a's numbers matter only to the tangent of an active b.
        if node.parameters[self.positions[1]]:
            node.rows[0] = None

    def _b(self, node: Any) -> Tensor:
        return node.rows[1] if self.b_is_rows else node.kept[0]

    def _a_shape(self, node: Any, delta: Tensor) -> Any:
        return (delta.shape[0], *node.kept[1][1:])

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        at_a, at_b, at_bias = self.positions
        result: Tensors = [None] * len(wanted)
        if wanted[at_a]:
            result[at_a] = self.to_a(node, delta, self._b(node), self._a_shape(node, delta))
        if wanted[at_b]:
            assert node.rows[0] is not None
            result[at_b] = self.to_b(node, delta, node.rows[0])
        if at_bias is not None and at_bias < len(wanted) and wanted[at_bias]:
            result[at_bias] = self.to_bias(node, delta)
        return result

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        at_a, at_b, at_bias = self.positions
        total = None
        if tangents[at_a] is not None:
            total = self.product(node, tangents[at_a], self._b(node))
        if tangents[at_b] is not None:
            total = plus(total, self.product(node, node.rows[0], tangents[at_b]))
        if at_bias is not None and at_bias < len(tangents) and tangents[at_bias] is not None:
            total = plus(total, tangents[at_bias])
        return total

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        at_a, at_b, _ = self.positions
        if node.inputs[at_a] is None or node.inputs[at_b] is None:
            return None
        result: Tensors = [None] * len(wanted)
        if wanted[at_b] and tangents[at_a] is not None:
            result[at_b] = self.to_b(node, delta, tangents[at_a])
        if wanted[at_a] and tangents[at_b] is not None:
            result[at_a] = self.to_a(node, delta, tangents[at_b], self._a_shape(node, delta))
        return result

    def second_and_loss(
        self,
        node: Any,
        delta: Any,
        tangents: Tensors,
        wanted: list[bool],
        loss: Times,
        last: bool,
    ) -> Tensors | None:
        # b's gradient is linear in a's numbers: one product with t_a + c a in the place of two.
        at_a, at_b, at_bias = self.positions
        tangent, a = tangents[at_a], node.rows[0]
        if not wanted[at_b] or tangent is None or a is None or tangents[at_b] is not None:
            return None
        result: Tensors = [None] * len(wanted)
        both = loss(a) + tangent
        if last:  # the product, and what the library needs for it, is where memory is shortest
            node.rows[0] = a = None
        result[at_b] = self.to_b(node, delta, both)
        if at_bias is not None and at_bias < len(wanted) and wanted[at_bias]:
            result[at_bias] = self.to_bias(node, loss(delta))
        return result


class Linear(Bilinear):
    """y = a Wᵀ + bias over the last axis of a; W may be one row without an axis for it."""

    positions = (0, 1, 2)

    def product(self, node: Any, a: Tensor, b: Tensor) -> Tensor:
        return a.matmul(b.t()) if a.dim() != 2 or b.dim() != 2 else torch.mm(a, b.t())

    def to_a(self, node: Any, delta: Tensor, b: Tensor, a_shape: Any) -> Tensor:
        if b.dim() == 1:
            return delta.unsqueeze(-1) * b
        return delta.matmul(b) if delta.dim() != 2 else torch.mm(delta, b)

    def to_b(self, node: Any, delta: Tensor, a: Tensor) -> Tensor:
        if node.kept[4].dim() == 1:
            return torch.mv(a.reshape(-1, a.shape[-1]).t(), delta.reshape(-1))
        if delta.dim() == 2:
            return torch.mm(delta.t(), a)
        return torch.mm(delta.reshape(-1, delta.shape[-1]).t(), a.reshape(-1, a.shape[-1]))

    def to_bias(self, node: Any, delta: Tensor) -> Tensor:
        if node.kept[4].dim() == 1:
            return sum_to(delta, node.kept[3])
        return delta.sum(0) if delta.dim() == 2 else delta.reshape(-1, delta.shape[-1]).sum(0)

    def _a_shape(self, node: Any, delta: Tensor) -> Any:
        return None


class MatrixMatrix(Bilinear):
    """mm(a, b), addmm(bias, a, b, beta, alpha)."""

    def __init__(self, with_bias: bool) -> None:
        self.positions = (1, 2, 0) if with_bias else (0, 1, None)

    def rest(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return kwargs.get("beta", 1), kwargs.get("alpha", 1)

    def product(self, node: Any, a: Tensor, b: Tensor) -> Tensor:
        return self._scaled(node, torch.mm(a, b))

    def to_a(self, node: Any, delta: Tensor, b: Tensor, a_shape: Any) -> Tensor:
        return self._scaled(node, torch.mm(delta, b.t()))

    def to_b(self, node: Any, delta: Tensor, a: Tensor) -> Tensor:
        b = node.kept[4]
        if b.stride(0) == 1 and b.shape[1] > 1:  # a transposed weight: give it its own layout
            return self._scaled(node, torch.mm(delta.t(), a).t())
        return self._scaled(node, torch.mm(a.t(), delta))

    def to_bias(self, node: Any, delta: Tensor) -> Tensor:
        beta = node.kept[2][0]
        result = sum_to(delta, node.kept[3])
        return result if beta == 1 else result * beta

    @staticmethod
    def _scaled(node: Any, product: Tensor) -> Tensor:
        alpha = node.kept[2][1]
        return product if alpha == 1 else product * alpha

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        at_bias = self.positions[2]
        if at_bias is not None and tangents[at_bias] is not None:
            tangents = list(tangents)
            shape = (*node.kept[1][:1], node.kept[4].shape[1])
            tangents[at_bias] = tangents[at_bias].expand(shape) * node.kept[2][0]
        return super().jvp(node, tangents)


class BatchedMatrix(MatrixMatrix):
    """bmm(a, b), baddbmm(bias, a, b): a batch of products, of activations as a rule."""

    b_is_rows = True

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return self.positions[2] is None

    def product(self, node: Any, a: Tensor, b: Tensor) -> Tensor:
        return self._scaled(node, torch.bmm(a, b))

    def to_a(self, node: Any, delta: Tensor, b: Tensor, a_shape: Any) -> Tensor:
        return self._scaled(node, torch.bmm(delta, b.transpose(1, 2)))

    def to_b(self, node: Any, delta: Tensor, a: Tensor) -> Tensor:
        return self._scaled(node, torch.bmm(a.transpose(1, 2), delta))

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        return Bilinear.jvp(self, node, tangents)


class MatrixVector(Bilinear):
    """mv(a, b)."""

    def product(self, node: Any, a: Tensor, b: Tensor) -> Tensor:
        return torch.mv(a, b)

    def to_a(self, node: Any, delta: Tensor, b: Tensor, a_shape: Any) -> Tensor:
        return torch.outer(delta, b)

    def to_b(self, node: Any, delta: Tensor, a: Tensor) -> Tensor:
        return torch.mv(a.t(), delta)


class Dot(Bilinear):
    """dot(a, b)."""

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return False

    def product(self, node: Any, a: Tensor, b: Tensor) -> Tensor:
        return torch.dot(a, b)

    def _a_shape(self, node: Any, delta: Tensor) -> Any:
        return None

    def to_a(self, node: Any, delta: Tensor, b: Tensor, a_shape: Any) -> Tensor:
        return delta * b

    def to_b(self, node: Any, delta: Tensor, a: Tensor) -> Tensor:
        return delta * a


class Convolution(Bilinear):
    """Every convolution, transposed or not, by the library's kernels or a faster way."""

    positions = (0, 1, 2)

    def rest(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[3:9]  # stride, padding, dilation, transposed, output_padding, groups

    def run(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, weight, bias, *rest = args
        way = way_of(x.shape, weight, rest)
        return op(*args) if way is None else way.convolve(x, weight, bias, rest)

    def product(self, node: Any, a: Tensor, b: Tensor) -> Tensor:
        return self.run(aten.convolution, (a, b, None, *node.kept[2]), {})  # type: ignore[no-any-return]

    def to_b(self, node: Any, delta: Tensor, a: Tensor) -> Tensor:
        return self._backward(node, delta, a, None, [False, True, False])[1]

    def to_bias(self, node: Any, delta: Tensor) -> Tensor:
        return delta.sum([axis for axis in range(delta.dim()) if axis != 1])

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        weight, (_, *inner), rest = node.kept[:3]
        few = wanted[0] and not rest[3] and few_channels.suits(delta, weight, rest)
        by_library = [wanted[0] and not few, *wanted[1:]]
        pulled: Tensors = [None] * 3
        if True in by_library:
            pulled = self._backward(node, delta, node.rows[0], weight, by_library)
        if few:
            pulled[0] = few_channels.spread(delta, weight, inner[1:], rest)
        return pulled[: len(wanted)]

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        if node.inputs[0] is None or node.inputs[1] is None:
            return None
        result: Tensors = [None] * len(wanted)
        if wanted[1] and tangents[0] is not None:
            result[1] = self.to_b(node, delta, tangents[0])
        if wanted[0] and tangents[1] is not None:
            only_input = [True, False, False]
            result[0] = self._backward(node, delta, None, tangents[1], only_input)[0]
        return result

    @staticmethod
    def _backward(
        node: Any, delta: Tensor, a: Tensor | None, weight: Tensor | None, wanted: list[bool]
    ) -> Tensors:
        _, a_shape, rest, bias_shape, original = node.kept
        mask = [wanted[0], wanted[1], len(wanted) > 2 and wanted[2]]
        if way := way_of(a_shape, original, rest):
            return way.gradients(delta, a, weight, a_shape, rest, mask)  # type: ignore[no-any-return]
        # Only shapes are read of the operand that no wanted gradient needs.
        a = delta.new_empty(1).expand((delta.shape[0], *a_shape[1:])) if a is None else a
        weight = original if weight is None else weight
        bias_size = list(bias_shape) if mask[2] else None
        return list(aten.convolution_backward(delta, a, weight, bias_size, *rest, mask))


RULES: dict[Any, Rule] = {
    aten.linear.default: Linear(),
    aten.mm.default: MatrixMatrix(with_bias=False),
    aten.addmm.default: MatrixMatrix(with_bias=True),
    aten.bmm.default: BatchedMatrix(with_bias=False),
    aten.mv.default: MatrixVector(),
    aten.dot.default: Dot(),
    aten.vdot.default: Dot(),
    aten.convolution.default: Convolution(),
}
