"""Rows of a table, numbers of a row: linear maps that integers choose."""

from typing import Any

from torch import Tensor, ops

from wgan_fast.double_backward.errors import Unsupported
from wgan_fast.double_backward.marks import carries_samples
from wgan_fast.double_backward.rules.base import Rule, Tensors

aten = ops.aten


class Embedding(Rule):
    """A row of a parameter per index: linear in the table."""

    name = "linear"

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        table, indices = args[:2]
        return indices.dim() > 0 and not carries_samples(table)

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if any(args[3:]):
            raise Unsupported(
                f"{node.op} with scale_grad_by_freq or sparse has gradients of its own kind"
            )
        padding = args[2] if len(args) > 2 else -1
        node.rows = [args[1]]
        node.kept = (args[0].shape[0], padding)

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        count, padding = node.kept
        return [aten.embedding_dense_backward(delta, node.rows[0], count, padding, False), None]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        return aten.embedding(tangents[0], node.rows[0])


class Gather(Rule):
    """y[.., i, ..] = x[.., index[.., i, ..], ..]: the score of each sample's class, say."""

    name = "linear"
    fresh = True

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        x, axis, index = args[:3]
        return carries_samples(x) and axis % x.dim() != 0 and index.shape[0] == x.shape[0]

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        x, axis, index = args[:3]
        node.rows = [index]
        node.kept = (axis % max(x.dim(), 1), x.shape, index.shape[:1])

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        axis, shape, rows = node.kept
        if delta.shape[:1] != rows:
            shape = (delta.shape[0], *shape[1:])
        return [delta.new_zeros(shape).scatter_add_(axis, node.rows[0], delta), None]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        tangent: Tensor = tangents[0]
        return tangent.gather(node.kept[0], node.rows[0])


RULES: dict[Any, Rule] = {
    aten.embedding.default: Embedding(),
    aten.gather.default: Gather(),
}
