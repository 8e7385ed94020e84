"""A flat graph as a list of calls that the compiled extension makes, with no Python in between."""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node

from wgan_fast.ops.registration import EXTENSION_MISSING

Replayed = Callable[..., list[Tensor | None]]

aten = torch.ops.aten

_NONE = -1
_ELEMENTWISE = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
    aten.add_.Tensor, aten.sub_.Tensor, aten.mul_.Tensor, aten.div_.Tensor,
}  # fmt: skip


def replay_of(graph: Graph, shares_memory: bool) -> Replayed | None:
    """The graph's results from its inputs; None where Python has to make the calls.

    That is where the extension is missing, or where something else is called than an operator of
    PyTorch's dispatcher, or with other arguments than tensors, numbers, words, PyTorch's own
    enumerations, and lists of these. Unless the graph ``shares_memory`` with whoever calls it,
    autograd, which knows tensors by their versions and views by their bases, needs to hear of none.
    """
    calls = [node for node in graph.nodes if node.op == "call_function"]
    calls = [node for node in calls if node.target is not operator.getitem]
    if EXTENSION_MISSING is not None or not all(_is_flat(node.target) for node in calls):
        return None
    from wgan_fast._C import Replay

    slots = _Slots(graph)
    replay = Replay(len(graph.find_nodes(op="placeholder")), slots.count, shares_memory)

    def add(op: OpOverload, given: Iterable[tuple[int, Any]], node: Node) -> None:
        schema = op._schema
        arguments = [(position, value, slots.read(value)) for position, value in given]
        written, unused = slots.written(node), slots.unused_after(node)
        replay.add(schema.name, schema.overload_name, arguments, written, unused)

    try:
        for node in calls:
            if (count := _averaged(node)) is not None:
                add(aten.sum.default, [(0, node.args[0])], node)
                add(aten.div.Tensor, [(0, node), (1, count)], node)
            else:
                add(node.target, _arguments(node), node)
    except (TypeError, ValueError):  # an argument that has no counterpart in the extension
        return None
    replay.finish([slots.of(result) for result in slots.results])
    return replay  # type: ignore[no-any-return]


def runs_side_by_side() -> bool:
    """Whether several calls of a graph can run at once, each in one thread."""
    if EXTENSION_MISSING is not None:
        return False
    from wgan_fast._C import RUNS_SIDE_BY_SIDE

    return RUNS_SIDE_BY_SIDE


def cut(arguments: Sequence[Tensor], parts: int) -> list[tuple[Tensor, ...]]:
    """The arguments of each part: tensors cut along their first axis, numbers whole."""
    columns = [one.chunk(parts) if one.dim() else (one,) * parts for one in arguments]
    return list(zip(*columns, strict=True))


def mean_of(
    function: Replayed,
    state: Sequence[Tensor],
    arguments: Sequence[Tensor],
    parts: int,
    rows: Sequence[int],
) -> list[Tensor | None]:
    """The means of a function's results over equal parts of its arguments, each in one thread.

    The function, of ``state`` and arguments, is a replay, or a compiled graph, which gives up the
    interpreter while it computes. At the places in ``rows``, results are concatenated.
    """
    from wgan_fast._C import Replay, mean_of_calls

    if isinstance(function, Replay):
        return function.mean((*state, *arguments), len(state), parts, rows)  # type: ignore[no-any-return]
    calls = [(*state, *part) for part in cut(arguments, parts)]
    return mean_of_calls(function, calls, rows)  # type: ignore[no-any-return]


def _is_flat(target: Any) -> bool:
    """Whether a call gives tensors, or one list of them."""
    if not isinstance(target, OpOverload):
        return False
    kinds = [str(returned.type) for returned in target._schema.returns]
    return kinds == ["List[Tensor]"] or all(kind == "Tensor" for kind in kinds)


def _arguments(node: Node) -> Iterator[tuple[int, Any]]:
    """The call's arguments with their positions in the schema."""
    for position, given in enumerate(node.args):
        is_number = type(given) in (int, float) and node.target in _ELEMENTWISE
        yield position, _as_tensor(given, node) if is_number else given
    formals = node.target._schema.arguments  # type: ignore[union-attr]
    positions = {formal.name: position for position, formal in enumerate(formals)}
    for name, given in node.kwargs.items():
        yield positions[name], given


def _as_tensor(number: Any, node: Node) -> Any:
    """A number in the result's type, or itself: a double would be converted in every call."""
    result = node.meta.get("val")
    if result is None or result.dtype not in (torch.float32, torch.float64):
        return number
    return torch.tensor(number, dtype=result.dtype)


def _averaged(node: Node) -> Tensor | None:
    """How many numbers a mean on a CPU is over; None for other calls.

    There it is a sum, divided by a number that would be converted in every call.
    """
    result = node.meta.get("val")
    if node.target is not aten.mean.default or result is None or not result.is_cpu:
        return None
    count = node.args[0].meta["val"].numel()  # type: ignore[union-attr]
    given = _as_tensor(count, node)
    return given if isinstance(given, Tensor) and not node.kwargs else None


class _Slots:
    """Which numbered slot holds what a node gives, and from which call on it is not needed."""

    def __init__(self, graph: Graph) -> None:
        (self.results,) = graph.find_nodes(op="output")[0].args
        numbers: dict[Any, int] = {}
        self._slot: dict[Node, int] = {}
        last_use: dict[int, Node] = {}
        for node in graph.nodes:
            if node.op != "output":
                self._slot[node] = numbers.setdefault(_origin(node), len(numbers))
                for source in node.all_input_nodes:
                    last_use[self._slot[source]] = node
        self.count = len(numbers)
        """How many slots there are."""
        kept = {self.of(result) for result in self.results}
        self._unused_after: dict[Node, list[int]] = {}
        for slot, node in last_use.items():
            if slot not in kept and node.op == "call_function":
                self._unused_after.setdefault(node, []).append(slot)

    def of(self, node: Node | None) -> int:
        """The slot of one node's result."""
        return _NONE if node is None else self._slot[node]

    def read(self, given: Any) -> list[int] | None:
        """The slots of an argument's tensors; None for one that is a constant."""
        if isinstance(given, Node):
            return [self.of(given)]
        if isinstance(given, (list, tuple)) and any(isinstance(item, Node) for item in given):
            return [self.of(item) for item in given]
        return None

    def written(self, node: Node) -> list[int]:
        """The slots of a call's results, in order."""
        parts: dict[Any, Node] = {
            user.args[1]: user for user in node.users if user.target is operator.getitem
        }
        if not parts:
            return [self.of(node) if node.users else _NONE]
        return [self.of(parts.get(index)) for index in range(1 + max(parts))]

    def unused_after(self, node: Node) -> list[int]:
        """The slots that no later call reads."""
        return self._unused_after.get(node, [])


def _origin(node: Node) -> Any:
    """What tells results apart: two nodes may take the same part of one call's results."""
    return node.args if node.target is operator.getitem else node
