"""Calls that come again: their passes from a flat graph of an earlier one, without their Python.

The passes over a recording are the same ops in the same order in every call, as long as the critic
records the same. After some such calls they are traced, and from then on the critic's Python alone
runs, on stand-ins (:mod:`wgan_fast.double_backward.way`): where it takes the way that was traced,
the graph computes everything; where not, nothing has happened and the call is made as the first.
Where it may, the graph is one of a part of the batch (:mod:`wgan_fast.side_by_side`), and of a
batch that is taken in equal slices it is one of them all.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from wgan_fast.critic_calls import CriticCall
from wgan_fast.double_backward.apart import keeps_apart
from wgan_fast.double_backward.choice import Memory, has_forward_hooks
from wgan_fast.double_backward.chunks import Computed, digest_of
from wgan_fast.double_backward.independence import ROUNDING
from wgan_fast.double_backward.random_numbers import RandomNumbers
from wgan_fast.double_backward.way import Critic, Way, noted
from wgan_fast.flat_graph import FlatGraph, trace
from wgan_fast.replay import cut
from wgan_fast.side_by_side import SideBySide, parts_of

logger = logging.getLogger("wgan_fast")

# Tracing takes as long as some hundred calls of a small critic.
CALLS_BEFORE = 10
# So many other ways in a row, and what was traced is forgotten; so often at most it is traced.
_MISSES = 8
_TRACES = 3
# In bytes: where a CPU's tensors are larger than this, Python's time does not count, and a merged
# batch is taken in slices.
_LARGEST_ON_CPU = 8 << 20
# Each slice has its ops in the graph, and tracing takes milliseconds for each of them.
_SLICES = 8

Compute = Callable[..., Computed]
Graph = FlatGraph | SideBySide


class _Calls:
    """What is known of the calls of a critic with arguments of one kind."""

    def __init__(self) -> None:
        self.count = self.misses = self.traces = 0
        self.replayed: _Replayed | None = None

    def start_anew(self) -> None:
        """What was traced is of another critic than it is now."""
        self.count = self.misses = 0
        self.replayed = None


_calls = Memory()


def replayed(
    critic: Critic,
    about: Any,
    arguments: Sequence[Tensor],
    compute: Compute,
    usual: Callable[[], Computed],
    batch: Callable[..., Tensor],
    rows_apart: bool,
    averages: bool,
    slices: Callable[[], int],
) -> Computed:
    """``usual()``, or the same from a graph.

    Args:
        critic: what is called.
        about: what else decides how it is called and what is computed; hashable.
        arguments: the tensors that the result is a function of, besides the critic's own.
        compute: from a number of slices and ``arguments`` to the result.
        usual: the result by whatever way is best without a graph.
        batch: from ``arguments`` to what the critic is called with.
        rows_apart: whether it must keep the batch's samples apart.
        averages: whether the result is a mean over the samples in ``arguments``, and its rows in
            their order.
        slices: how many slices the whole batch is taken in, one after the other.
    """
    if _must_see_numbers(critic, arguments[0]):
        return usual()
    kinds = [(a.shape, a.stride(), a.dtype, a.device) for a in arguments]
    about = about, torch.get_num_threads()
    calls = _calls.get(critic, about, *kinds)
    if calls is None:
        calls = _Calls()
        _calls.set(critic, calls, about, *kinds)
    replay = calls.replayed  # another thread may take it away meanwhile
    if replay is not None:
        if done := replay(critic, arguments):
            calls.misses = 0
            return done
        calls.misses += 1
        if calls.misses >= _MISSES:
            calls.start_anew()
        return usual()
    # Another thread's modules would be traced as well.
    alone = threading.current_thread() is threading.main_thread()
    if not alone or calls.traces == _TRACES:
        return usual()
    calls.count += 1
    if calls.count < CALLS_BEFORE:
        return usual()
    calls.traces += 1
    numbers = RandomNumbers(arguments[0].device)
    done = usual()
    if done.digest is None:  # not even to see whether it can be traced is it called once more
        calls.traces = _TRACES
        return done
    numbers_after = RandomNumbers(arguments[0].device)
    try:
        candidate = _traced(critic, arguments, compute, batch, rows_apart, averages, slices())
        numbers.put_back()
        again = None if candidate is None else candidate(critic, arguments)
        drawn = numbers_after == RandomNumbers(arguments[0].device)
        if again is not None and drawn and _agree(done, again):
            calls.replayed = candidate
        else:
            calls.traces = _TRACES
    except Exception as error:  # a critic can be untraceable in any way
        calls.traces = _TRACES
        logger.debug("not traced, runs as it is: %s", error)
    finally:
        numbers_after.put_back()
    return done


def _must_see_numbers(critic: Critic, x: Tensor) -> bool:
    """Whether somebody looks at this call, or there is more to it than a critic and samples."""
    if torch._C._len_torch_dispatch_stack() > 0 or has_forward_hooks(critic):
        return True
    if isinstance(critic, CriticCall) and (critic.tensors or critic.separate):
        return True
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


class _Replayed:
    """A graph of a call, and the way through the critic for which it holds."""

    def __init__(self, way: Way, graph: Graph, traced: Computed) -> None:
        self._way, self._graph = way, graph
        self._leaves = traced.leaves
        self._means = 1 + len(traced.means)
        self._rows = self._means + len(traced.rows)

    def __call__(self, critic: Critic, arguments: Sequence[Tensor]) -> Computed | None:
        """The call's result; None if the critic takes another way."""
        if not self._way.still_taken(critic):
            return None
        results: Any = self._graph(*arguments)
        means, rows = results[1 : self._means], results[self._means : self._rows]
        return Computed(results[0], self._leaves, results[self._rows :], (*means,), (*rows,))


def _traced(
    critic: Critic,
    arguments: Sequence[Tensor],
    compute: Compute,
    batch: Callable[..., Tensor],
    rows_apart: bool,
    averages: bool,
    slices: int,
) -> _Replayed | None:
    """A graph of such a call; None where none can stand for it, or none pays."""
    if slices > 1:
        return _in_slices(critic, arguments, compute, batch, rows_apart, slices)
    found = noted(critic, batch(*arguments), rows_apart)
    if found is None:
        return None
    way, digest = found
    if arguments[0].is_cpu and way.largest > _LARGEST_ON_CPU:
        return None
    parts = cut(arguments, parts_of(arguments) if averages else 1)
    in_parts = None
    if len(parts) > 1 and keeps_apart(critic, [batch(*part) for part in parts]):
        try:
            in_parts = _in_parts(critic, way, parts, compute, batch, rows_apart)
        except Exception as error:  # a critic can be tied to its batch's size in any way
            logger.debug("not taken in parts: %s", error)
    if in_parts is not None:
        return in_parts
    graph, traced = _graph_of(way, arguments, compute, 1)
    return None if traced.half or digest != traced.digest else _Replayed(way, graph, traced)


def _in_slices(
    critic: Critic,
    arguments: Sequence[Tensor],
    compute: Compute,
    batch: Callable[..., Tensor],
    rows_apart: bool,
    slices: int,
) -> _Replayed | None:
    """By a graph of equal slices, of which the critic sees one at a time."""
    rows = [one.shape[0] for one in arguments if one.dim()]
    if slices > _SLICES or any(count % slices for count in rows):
        return None
    found = noted(critic, batch(*cut(arguments, slices)[0]), rows_apart)
    if found is None:
        return None
    way, digest = found
    graph, traced = _graph_of(way, arguments, compute, slices)
    if traced.half or digest_of([digest] * slices) != traced.digest:
        return None
    return _Replayed(way, graph, traced)


def _in_parts(
    critic: Critic,
    way: Way,
    parts: Sequence[tuple[Tensor, ...]],
    compute: Compute,
    batch: Callable[..., Tensor],
    rows_apart: bool,
) -> _Replayed | None:
    """By a graph of one part, where Python takes the same way with it as with the batch."""
    found = noted(critic, batch(*parts[0]), rows_apart)
    if found is None or found[0].ops != way.ops:
        return None
    with torch.no_grad():
        compute(1, *parts[0])  # what is learnt of parts in the first call must not be traced
    # Sums over parts have other roundings than the batch's anyway.
    graph, traced = _graph_of(found[0], parts[0], compute, 1, to_the_bit=False)
    if traced.half or found[1] != traced.digest:
        return None
    first_row = 1 + len(traced.means)
    in_parts = SideBySide(graph, len(parts), range(first_row, first_row + len(traced.rows)))
    return _Replayed(way, in_parts, traced) if in_parts.pays() else None


def _graph_of(
    way: Way, arguments: Sequence[Tensor], compute: Compute, slices: int, to_the_bit: bool = True
) -> tuple[FlatGraph, Computed]:
    outcomes: list[Computed] = []

    def flat(*tensors: Tensor) -> list[Tensor | None]:
        outcomes.append(compute(slices, *tensors))
        traced = outcomes[0]
        return [traced.value, *traced.means, *traced.rows, *traced.gradients]

    with torch.no_grad():
        graph = trace(flat, way.outside, arguments, to_the_bit=to_the_bit)
    return graph, outcomes[0]


def _agree(done: Computed, again: Computed) -> bool:
    """Whether two results of one call differ by rounding alone."""
    if list(map(id, done.leaves)) != list(map(id, again.leaves)):
        return False
    pairs = list(zip((done.value, *done.gradients), (again.value, *again.gradients), strict=True))
    if any((one is None) is not (other is None) for one, other in pairs):
        return False
    there = [(one, other) for one, other in pairs if one is not None and other is not None]
    largest = max(float(one.norm()) for one, _ in there)
    return all(float((one - other).norm()) <= ROUNDING[one.dtype] * largest for one, other in there)
