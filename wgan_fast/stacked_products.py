"""A weight's gradients from the loss and from the penalty, as one product of matrices.

A merged batch's cotangents Δ lie in one matrix, the loss's rows first; of its activations a, the
penalty's rows are not needed any more once their tangents t are there. So Δₗᵀ aₗ + Δₚᵀ t is one
product Δᵀ a, if t is written over those rows: longer sums, and half as many calls.
"""

from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

from wgan_fast.graph_memory import Memory, seen

aten = torch.ops.aten

# The forms of elementwise ops that write where they are told to, and what that argument is called.
_INTO = {
    aten.threshold_backward.default: (aten.threshold_backward.grad_input, "grad_input"),
    aten.leaky_relu_backward.default: (aten.leaky_relu_backward.grad_input, "grad_input"),
    aten.mul.Tensor: (aten.mul.out, "out"),
}
_WHERE: dict[Any, str] = dict(_INTO.values())


class _Rows(NamedTuple):
    """Rows ``start`` to ``stop`` of ``whole``, which has ``total`` of them."""

    whole: Node
    start: int
    stop: int
    total: int


class _Pair(NamedTuple):
    """The two products of which one is made."""

    cotangents: Node
    activations: Node
    penalty_rows: _Rows
    tangent: Node
    first_product: Node


def stack_products(graph: Graph) -> None:
    """Make one product of two wherever that changes nothing but roundings."""
    memory = Memory(graph)
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is aten.addmm.default:
            pair = _pair(node)
            if pair is not None and _may_be_stacked(memory, node, pair):
                _stack(graph, node, pair)
                memory = Memory(graph)
    graph.eliminate_dead_code()


def _pair(node: Node) -> _Pair | None:
    """The parts of Δₗᵀ aₗ + Δₚᵀ t, if a node is that."""
    given: Any = node.args
    total, transposed, tangent = given
    if node.kwargs or not all(isinstance(one, Node) for one in given):
        return None
    if total.target is not aten.mm.default or len(total.users) > 1:
        return None
    of_loss, of_penalty = _rows(_transposed(total.args[0])), _rows(_transposed(transposed))
    activations = _rows(total.args[1])
    if of_loss is None or of_penalty is None or activations is None:
        return None
    same = of_loss.whole is of_penalty.whole and of_loss[1:] == activations[1:]
    if not same or of_loss.start != 0 or of_loss.stop != of_penalty.start:
        return None
    if of_penalty.stop != of_penalty.total:
        return None
    return _Pair(of_loss.whole, activations.whole, of_penalty, tangent, total)


def _transposed(node: Any) -> Any:
    """What a node is the transpose of."""
    is_one = isinstance(node, Node) and node.target is aten.t.default
    return node.args[0] if is_one else None


def _rows(node: Any) -> _Rows | None:
    """Which rows of what a node has."""
    if not isinstance(node, Node) or node.target is not aten.slice.Tensor or node.kwargs:
        return None
    given: Any = node.args
    whole, dim, start, stop, *step = given
    value = seen(whole)
    if dim != 0 or step not in ([], [1]) or value is None:
        return None
    count = value.shape[0]
    return _Rows(whole, start or 0, min(count if stop is None else stop, count), count)


def _may_be_stacked(memory: Memory, node: Node, pair: _Pair) -> bool:
    """Whether the tangent can be written over the activations, and all else stays what it was."""
    tangent, activations = pair.tangent, pair.activations
    one, other = seen(tangent), seen(activations)
    if not _is_movable(tangent) or one is None or other is None:
        return False
    alike = (one.shape[1:], one.dtype, one.device) == (other.shape[1:], other.dtype, other.device)
    if not alike or not other.is_contiguous():
        return False
    for read in tangent.all_input_nodes:
        # The very rows that are written, or other memory.
        if memory.of(read) is memory.of(activations):
            rows = _rows(read)
            if rows is None or rows.whole is not activations or rows[1:] != pair.penalty_rows[1:]:
                return False
    return (
        memory.is_fresh(activations)
        and memory.last_use(activations) <= memory.place(tangent)
        and not memory.written_between(pair.first_product, node, [pair.cotangents, activations])
    )


def _is_movable(tangent: Node) -> bool:
    """Whether an op has a form that writes where it is told to, and nobody expects it elsewhere."""
    if tangent.target in _INTO:
        return not tangent.kwargs
    name = _WHERE.get(tangent.target)
    written = tangent.kwargs.get(name) if name else None  # over its own argument
    return isinstance(written, Node) and written is tangent.args[0] and len(written.users) == 1


def _stack(graph: Graph, node: Node, pair: _Pair) -> None:
    tangent, rows = pair.tangent, pair.penalty_rows
    with graph.inserting_before(tangent):
        place = graph.call_function(aten.slice.Tensor, (pair.activations, 0, rows.start, rows.stop))
        place.meta = tangent.meta
    target: Any = tangent.target
    tangent.target, _ = _INTO.get(target, (target, None))
    tangent.kwargs = {_WHERE[tangent.target]: place}
    with graph.inserting_before(node):
        transposed = graph.call_function(aten.t.default, (pair.cotangents,))
        value = seen(pair.cotangents)
        assert value is not None
        transposed.meta = {"val": value.t()}
        product = graph.call_function(aten.mm.default, (transposed, pair.activations))
    product.meta = node.meta
    node.replace_all_uses_with(product)
    graph.erase_node(node)
