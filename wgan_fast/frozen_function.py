"""A function of tensors and modules that is traced once per signature and replayed from then on."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from wgan_fast.double_backward import choice
from wgan_fast.double_backward.errors import Unsupported
from wgan_fast.double_backward.memory_format import InChannelsLast, StridesError
from wgan_fast.flat_graph import FlatGraph, TraceError, UncheckedOneHot, trace
from wgan_fast.replay import cut
from wgan_fast.side_by_side import Apart, SideBySide, parts_of
from wgan_fast.signature import Signature

logger = logging.getLogger("wgan_fast")

MODES = ("auto", "captured", "compiled", "eager")

Function = Callable[..., Sequence[Tensor | None]]

# Graphs kept per function. Whoever needs more of them trains on more shapes, or changes a number
# that is part of the graph in every step, which costs more than freezing saves.
_KEPT = 8

# What rounding may move a result by, relative to the largest: compiled kernels add in other orders.
_ROUNDING = {torch.float64: 1e-8, torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


class FrozenFunction:
    """Calls of ``function``, by a flat graph of it.

    Args:
        function: from tensors to tensors; reads ``owners`` besides, and may write their buffers.
        owners: the modules, or functions that hold modules.
        names: of the results, for the error that says which one differs.
        apart: where the results are means over samples, what proves that the batch may be taken
            in equal parts, one on each thread.
        rows: the places of results that have a row per sample instead.
        mode: ``"captured"``: by a flat graph; ``"compiled"``: by one that Inductor compiled;
            ``"eager"``: the function itself; ``"auto"``: captured, or eager with one line in the
            log where no graph can stand for the function.
    """

    def __init__(
        self,
        function: Function,
        owners: Sequence[Any],
        names: Callable[[], Sequence[str]],
        mode: str = "captured",
        apart: Apart | None = None,
        rows: Sequence[int] = (),
    ) -> None:
        self.function = function
        self.mode = mode
        self._apart = apart
        self._rows = rows
        self._owners = list(owners)
        self._names = names
        self._signature = Signature(owners)
        self._graphs: dict[Any, FlatGraph | SideBySide | None] = {}
        self._latest: tuple[Any, Function, Any] = None, function, None
        self._freezes = 0

    def __call__(self, *arguments: Tensor) -> Sequence[Tensor | None]:
        """The function's results on ``arguments``.

        Raises:
            TraceError: no graph can stand for the function, and the mode does not allow for that.
        """
        return self.prepared(*arguments)(*arguments)

    def prepared(self, *arguments: Tensor) -> Function:
        """What to call with such arguments, as long as nothing but their numbers changes.

        The graph is made if it is not there; nothing that the function does meanwhile stays.

        Raises:
            TraceError: as a call does.
        """
        if self.mode == "eager":
            return self.function
        snapshot, run, latest = self._latest
        if snapshot is not None and snapshot.holds(*arguments):
            return run
        key = self._key(arguments)
        if key not in self._graphs:
            key = self._freeze(arguments)
        run = self._graphs[key] or self.function
        # Whoever calls with other arguments each time does not wait for what would not serve.
        self._latest = self._signature.snapshot(arguments) if key == latest else None, run, key
        return run

    def graph(self, *arguments: Tensor) -> FlatGraph | None:
        """The graph for such arguments, or for equal parts of them, if there is one already."""
        found = self._graphs.get(self._key(arguments))
        return found.graph if isinstance(found, SideBySide) else found

    def _key(self, arguments: Sequence[Tensor]) -> Any:
        return *self._signature.now(arguments), torch.get_num_threads()

    def _freeze(self, arguments: Sequence[Tensor]) -> Any:
        """Make the graph for such arguments; returns its key."""
        self._signature = Signature(self._owners)  # a module may have been replaced since
        key = self._key(arguments)
        graph: FlatGraph | SideBySide | None
        try:
            graph = self._traced(arguments)
        except (TraceError, Unsupported) as error:
            if self.mode != "auto":
                raise
            logger.warning("not frozen, runs eagerly: %s", error)
            graph = None
        if len(self._graphs) >= _KEPT:
            self._graphs.pop(next(iter(self._graphs)))
        self._graphs[key] = graph
        self._freezes += 1
        if self._freezes == 4 * _KEPT:
            logger.warning(
                "frozen for the %dth time: a shape, a module's attribute or a hyperparameter "
                "changes in every step; run this part eagerly, or keep it fixed",
                self._freezes,
            )
        return key

    def _traced(self, arguments: Sequence[Tensor]) -> FlatGraph | SideBySide:
        for owner in self._owners:
            if why := _obstacle(owner):
                raise TraceError(why)
        state = self._signature.state()
        # Weights may have been updated inside of an autocast context, which keeps their old casts.
        torch.clear_autocast_cache()
        with _restored(state, arguments):
            self.function(*arguments)  # what is learnt in the first call may change the second
        with _restored(state, arguments), UncheckedOneHot():
            expected = [_copied(result) for result in self.function(*arguments)]
        if in_parts := self._in_parts(state, arguments):
            with _restored(state, arguments):
                if self._difference(expected, in_parts(*arguments)) is None:
                    return in_parts
        graph = self._graph_of(state, arguments)
        if [id(tensor) for tensor in self._signature.state()] != [id(tensor) for tensor in state]:
            raise TraceError("a module replaces its parameters or buffers in every call")
        if self.mode == "compiled":
            with _restored(state, arguments):
                graph.compile(arguments)
        with _restored(state, arguments):
            differs = self._difference(expected, [_copied(result) for result in graph(*arguments)])
        if differs is not None:
            raise TraceError(differs)
        return graph

    def _in_parts(self, state: Sequence[Tensor], arguments: Sequence[Tensor]) -> SideBySide | None:
        """By equal parts of the batch, where that is proven and pays."""
        count = 1 if self._apart is None else parts_of(arguments)
        if count == 1:
            return None
        parts = cut(arguments, count)
        try:
            with _restored(state, arguments):
                if not self._apart(parts):  # type: ignore[misc]
                    return None
                self.function(*parts[0])  # as above
            found = SideBySide(self._graph_of(state, parts[0]), count, self._rows)
        except (TraceError, Unsupported):
            return None
        if not found.pays(self.mode == "compiled"):
            return None
        if self.mode == "compiled":
            with _restored(state, arguments):
                found.graph.compile(parts[0], threads=1)
        return found

    def _graph_of(self, state: Sequence[Tensor], arguments: Sequence[Tensor]) -> FlatGraph:
        try:
            with _restored(state, arguments):
                return trace(self.function, state, arguments, InChannelsLast())
        except StridesError:
            with _restored(state, arguments):
                return trace(self.function, state, arguments)

    def _difference(
        self, expected: Sequence[Tensor | None], results: Sequence[Tensor | None]
    ) -> str | None:
        """Which of the frozen results differs by more than rounding from the function's own."""
        largest = max((float(e.double().norm()) for e in expected if e is not None), default=0.0)
        for name, wanted, got in zip(self._names(), expected, results, strict=True):
            if wanted is None and got is None:
                continue
            off = float("inf")
            if wanted is not None and got is not None:
                off = float((got.double() - wanted.double()).norm())
                if off <= _rounding(wanted) * largest:
                    continue
            return (
                f"frozen and eager differ, first in {name}: by {off:.3g}, where the largest result "
                f"has norm {largest:.3g}. Something in it is not a function of its tensors: a "
                "count in Python, random numbers from elsewhere than PyTorch's default generator"
            )
        return None


def _rounding(result: Tensor) -> float:
    kind = result.device.type
    casts = torch.is_autocast_enabled(kind) and result.dtype != torch.float64
    return _ROUNDING[torch.get_autocast_dtype(kind) if casts else result.dtype]


def _copied(result: Tensor | None) -> Tensor | None:
    return None if result is None else result.detach().clone()


def _obstacle(owner: Any) -> str | None:
    """Why a graph must not stand for a module: what it does besides computing would be lost."""
    for root in choice.modules_of(owner):
        for module in root.modules():
            if isinstance(module, DistributedDataParallel):
                return "it is wrapped in DistributedDataParallel, whose communication is no op"
            if module._backward_hooks or module._backward_pre_hooks:
                return f"a {type(module).__name__} has backward hooks, which a graph does not call"
    return None


@contextmanager
def _restored(state: Sequence[Tensor], arguments: Sequence[Tensor]) -> Iterator[None]:
    """In here a function may run at will: random numbers and ``state`` are put back after."""
    devices = {tensor.device for tensor in (*state, *arguments) if tensor.device.type == "cuda"}
    before = [tensor.detach().clone() for tensor in state]
    with torch.random.fork_rng(list(devices)):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, was in zip(state, before, strict=True):
                    # A version that did not change tells others that nothing was written.
                    if not torch.equal(tensor, was):
                        tensor.copy_(was)
