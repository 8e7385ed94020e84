"""Elementwise ops of a flat graph, made to write into an input that nobody needs any more.

An activation's input is such a one wherever its derivative is told from its output. Written in
place, a result is in the cache already, and no fresh memory has to be found for it.
"""

import functools
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node

aten = torch.ops.aten

# Elementwise: each number of the result from the number in the same place of the first argument.
_IN_PLACE = {
    aten.relu.default: aten.relu_.default,
    aten.leaky_relu.default: aten.leaky_relu_.default,
    aten.elu.default: aten.elu_.default,
    aten.silu.default: aten.silu_.default,
    aten.hardtanh.default: aten.hardtanh_.default,
    aten.tanh.default: aten.tanh_.default,
    aten.sigmoid.default: aten.sigmoid_.default,
    aten.add.Tensor: aten.add_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.div.Tensor: aten.div_.Tensor,
}
_INTO = {
    aten.threshold_backward.default: aten.threshold_backward.grad_input,
    aten.leaky_relu_backward.default: aten.leaky_relu_backward.grad_input,
}
_CHANGED = _IN_PLACE.keys() | _INTO.keys()
# Ops that give each of their results memory of its own, which views alone share.
_FRESH = {
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default,
    aten.convolution.default, aten.convolution_backward.default, aten.avg_pool2d.default,
    aten.avg_pool2d_backward.default, aten.native_layer_norm.default, aten.div.Scalar,
    aten.clone.default, *_CHANGED,
}  # fmt: skip


# Ops whose result may lie in the memory of an argument that they do not say so of.
_UNSAID = {aten._unsafe_view.default, aten.lift.default, aten.set_.source_Tensor}


class Memory:
    """Which results of a graph lie in the same memory, and until when that is needed."""

    def __init__(self, graph: Graph) -> None:
        self._place = {node: index for index, node in enumerate(graph.nodes)}
        self._of: dict[Node, Node] = {}
        self._last_use: dict[Node, int] = {}
        self._mixed: set[Node] = set()
        for node in graph.nodes:
            self._of[node] = self._shared_by([self._of[one] for one in _aliased(node)] or [node])
            for source in node.all_input_nodes:
                self._last_use[self._of[source]] = self._place[node]

    def _shared_by(self, memories: list[Node]) -> Node:
        """The memory that a result lies in; of several that it may lie in, one is made."""
        first, *others = dict.fromkeys(memories)
        if others:
            self._mixed.add(first)
            self._last_use[first] = max(self._last_use.get(one, -1) for one in (first, *others))
            self._of |= {node: first for node, whole in self._of.items() if whole in others}
        return first

    def of(self, node: Node) -> Node:
        """The node that made the memory that a node's result lies in."""
        return self._of[node]

    def place(self, node: Node) -> int:
        """How many nodes come before one."""
        return self._place[node]

    def last_use(self, node: Node) -> int:
        """The place of the last node that reads or writes a result's memory, or returns it."""
        whole = self._of[node]
        return self._last_use.get(whole, self._place[whole])

    def is_fresh(self, node: Node) -> bool:
        """Whether a result lies in memory that an op of the graph made, and has all of it."""
        whole = self._of[node]
        return whole not in self._mixed and _is_fresh(whole) and _covers(node, whole)

    def may_be_handed_in(self, node: Node) -> bool:
        """Whether a result may lie in the memory of one of the graph's inputs."""
        whole = self._of[node]
        return whole.op != "call_function" or whole in self._mixed

    def written_between(self, first: Node, last: Node, results: Iterable[Node]) -> bool:
        """Whether an op between two others writes into the memory of one of some results."""
        of_results = {self._of[one] for one in results}
        return any(
            self._place[first] < self._place[node] < self._place[last]
            and any(self._of[one] in of_results for one in _written(node))
            for node in self._of
        )

    def join(self, node: Node, written: Node) -> None:
        """A result is written into another's memory from now on."""
        whole, last_use = self._of[written], self.last_use(node)
        self._of |= {one: whole for one, other in self._of.items() if other is node}
        self._last_use[whole] = max(last_use, self._last_use[whole])


def shares_memory(graph: Graph) -> bool:
    """Whether whoever calls the graph shares memory with it, or two of its results do.

    That is where an op writes, or may write, into an input, or a result may be a view of one.
    """
    memory = Memory(graph)
    results = [one for one in graph.find_nodes(op="output")[0].args[0] if one is not None]
    written = [one for node in graph.nodes for one in _written(node)]
    places = {memory.of(one) for one in results}
    return len(places) < len(results) or any(map(memory.may_be_handed_in, (*written, *results)))


def reshaped_in_place(node: Node) -> bool:
    """Whether ``unsqueeze_`` or the like gives this very tensor another shape."""
    inplace_view = torch.Tag.inplace_view
    return any(inplace_view in getattr(user.target, "tags", ()) for user in node.users)


def reuse_memory(graph: Graph) -> None:
    """Let ops write into their first argument where that is the last that is done with it."""
    memory = Memory(graph)
    for node in graph.nodes:
        written = node.args[0] if node.target in _CHANGED else None
        if not isinstance(written, Node):
            continue
        others = [one for one in node.all_input_nodes if one is not written]
        if (
            memory.is_fresh(written)
            and memory.last_use(written) == memory.place(node)
            and all(memory.of(one) is not memory.of(written) for one in others)
            and _is_alike(node, written)
        ):
            _write_into(node, written)
            memory.join(node, written)


def _write_into(node: Node, written: Node) -> None:
    if into := _INTO.get(node.target):  # type: ignore[call-overload]
        node.target = into
        node.kwargs = {**node.kwargs, "grad_input": written}
    else:
        node.target = _IN_PLACE[node.target]  # type: ignore[index]


def _aliased(node: Node) -> Iterator[Node]:
    """The arguments that the result may lie in the memory of."""
    if node.op != "call_function":
        return
    if not isinstance(node.target, OpOverload):  # one of several results
        if not _is_fresh(node):
            yield from node.all_input_nodes
    elif node.target.namespace not in ("aten", "wgan_fast") or node.target in _UNSAID:
        yield from node.all_input_nodes
    else:
        yield from _given(node, _aliases(node.target))


def _written(node: Node) -> Iterator[Node]:
    """The arguments that an op writes into."""
    if node.op == "call_function" and isinstance(node.target, OpOverload):
        yield from _given(node, _writes(node.target))


Formals = tuple[tuple[int, str], ...]


@functools.cache
def _aliases(op: OpOverload) -> Formals:
    """Positions and names of the arguments that results may be views of, or are."""
    formals = enumerate(op._schema.arguments)
    return tuple((place, one.name) for place, one in formals if one.alias_info is not None)


@functools.cache
def _writes(op: OpOverload) -> Formals:
    formals = enumerate(op._schema.arguments)
    return tuple((place, one.name) for place, one in formals if one.is_write)


def _given(node: Node, formals: Formals) -> Iterator[Node]:
    for place, name in formals:
        given = node.args[place] if place < len(node.args) else node.kwargs.get(name)
        several = given if isinstance(given, (list, tuple)) else [given]
        yield from (one for one in several if isinstance(one, Node))


def _is_fresh(node: Node) -> bool:
    """Whether a result, or the one of several, is in memory that nothing else lies in."""
    made_by = node.all_input_nodes[0].target if node.target is operator.getitem else node.target
    if not isinstance(made_by, OpOverload):
        return False
    # What is registered as an operator of its own must not give back what it was given.
    is_own = made_by.namespace == "wgan_fast" and not made_by._schema.is_mutable
    return made_by in _FRESH or is_own


def _covers(view: Node, whole: Node) -> bool:
    """Whether a view has every number of the memory that it lies in, and each in one place."""
    one, all_of_it = seen(view), seen(whole)
    if one is None or all_of_it is None:
        return False
    dense = bool(aten.is_non_overlapping_and_dense.default(one))
    return dense and one.numel() == all_of_it.numel() and one.dtype == all_of_it.dtype


def _is_alike(node: Node, other: Node) -> bool:
    """Whether two results have one layout, type and device."""
    one, two = seen(node), seen(other)
    if one is None or two is None:
        return False
    facts = [(value.shape, value.stride(), value.dtype, value.device) for value in (one, two)]
    return facts[0] == facts[1]


def seen(node: Any) -> Tensor | None:
    """What a node gave when it was traced, without its numbers; None for several results."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return value if isinstance(value, Tensor) else None
