"""Products of matrices with a few columns, spelled in the order that CPU libraries are fast in.

Samples of a few numbers, as points in the plane are, make a critic's first layer thin: its weight's
gradient Δᵀ x and the gradient in its input Δ W have as many columns as a sample has numbers. MKL
takes as long for a product of up to some ten columns as for one of thirty, unless the few come
first, or lie one after the other.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from wgan_fast.graph_memory import reshaped_in_place, seen

aten = torch.ops.aten

# Columns: one is a vector, which has kernels of its own; from some ten on, MKL is fast as it is.
_FEWEST, _MOST = 2, 8
# Other sizes, from which on a product takes longer than a copy of the thin matrix.
_LONG = 32


def turn_thin_products(graph: Graph) -> None:
    """Spell products with a few columns in another order; sums may be rounded otherwise."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not aten.mm.default:
            continue
        left, right = (seen(one) for one in node.args)
        if left is None or right is None or not _is_thin(left, right):
            continue
        if left.stride(0) == 1:
            _transpose(graph, node)
        elif right.stride(1) == 1:
            _lay_columns_out(graph, node)
    graph.eliminate_dead_code()


def _is_thin(left: Tensor, right: Tensor) -> bool:
    rows, inner = left.shape
    fits = _FEWEST <= right.shape[1] <= _MOST and min(rows, inner) >= _LONG
    return fits and left.is_cpu and left.dtype in (torch.float32, torch.float64)


def _transpose(graph: Graph, node: Node) -> None:
    """A B as (Bᵀ Aᵀ)ᵀ, where A is itself the transpose of what lies in memory."""
    left, right = node.args
    value = seen(node)
    assert value is not None
    with graph.inserting_before(node):
        product = graph.call_function(aten.mm.default, (_t(graph, right), _t(graph, left)))
        product.meta["val"] = value.new_empty(value.shape[::-1])
        result = _contiguous(graph, _t(graph, product))
    node.replace_all_uses_with(result)
    graph.erase_node(node)


def _lay_columns_out(graph: Graph, node: Node) -> None:
    """A B with each column of B in one run of memory."""
    left, right = node.args
    with graph.inserting_before(node):
        node.args = left, _t(graph, _contiguous(graph, _t(graph, right)))


def _t(graph: Graph, node: Any) -> Node:
    if node.target is aten.t.default and not reshaped_in_place(node.args[0]):
        return node.args[0]  # type: ignore[no-any-return]
    value = seen(node)
    assert value is not None
    transposed = graph.call_function(aten.t.default, (node,))
    transposed.meta["val"] = value.t()
    return transposed


def _contiguous(graph: Graph, node: Node) -> Node:
    value = seen(node)
    assert value is not None
    kind: dict[str, Any] = {"memory_format": torch.contiguous_format}
    copied = graph.call_function(aten.clone.default, (node,), kind)
    copied.meta["val"] = value.contiguous()
    return copied
