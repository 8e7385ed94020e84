"""A batch in equal parts through one graph, a part on each thread: for means over the samples.

All threads of an operator wait for each other at its end, a hundred times in a step of a small
critic; threads that each take a part of the batch wait once. What a step gives for the batch is
then the mean of what it gives for the parts, but for rounding, if samples do not see each other,
which whoever makes such a graph has to prove.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from wgan_fast.flat_graph import FlatGraph
from wgan_fast.replay import runs_side_by_side

Apart = Callable[[list[tuple[Tensor, ...]]], bool]
"""Of the arguments of equal parts of a batch: whether the mean of a step's results for them is
proven to be its result for the batch."""

# Of a part: with fewer rows, products of matrices take longer by the row.
_SAMPLES = 8
# In bytes, of the batch's largest tensor: the threads of large operators wait for each other a
# small part of the time, and their caches hold one batch sooner than its parts.
_LARGEST = 8 << 20
# In bytes, of the same tensor: threads that begin with a call in Python begin one after the other.
_COMPILED = 1 << 20
# In bytes: gradients up to this size stay in a core's own cache until they are added up.
_STAYS_CLOSE = 1 << 20


def parts_of(arguments: Sequence[Tensor]) -> int:
    """In how many parts to take a batch: as many as there are threads, or 1."""
    if not all(one.is_cpu for one in arguments) or not runs_side_by_side():
        return 1
    threads = torch.get_num_threads()
    rows = [one.shape[0] for one in arguments if one.dim()]
    fits = all(count % threads == 0 and count >= threads * _SAMPLES for count in rows)
    return threads if rows and fits else 1


class SideBySide:
    """A function of a batch, by a graph of it on one of ``parts`` equal parts.

    Args:
        graph: from a part's arguments to results.
        parts: how many there are.
        rows: the places of results that have a row per sample; all others are means.
    """

    def __init__(self, graph: FlatGraph, parts: int, rows: Sequence[int] = ()) -> None:
        self.graph = graph
        self._parts = parts
        self._rows = list(rows)

    def pays(self, compiled: bool = False) -> bool:
        """Whether operators are small enough, and gradients, of which each part has its own.

        To be asked before the graph is ``compiled``, if it is to be.
        """
        largest = self.graph.largest * self._parts
        held = sum(size for place, size in enumerate(self.graph.sizes) if place not in self._rows)
        if compiled and largest < _COMPILED:
            return False
        return self.graph.replays and largest <= _LARGEST and held <= max(largest, _STAYS_CLOSE)

    def __call__(self, *arguments: Tensor) -> list[Tensor | None]:
        """The function's results on the batch; autograd and autocast see nothing of it."""
        return self.graph.mean(arguments, self._parts, self._rows)

    def and_step(
        self, adam: Any, gradients: Sequence[int], *arguments: Tensor
    ) -> list[Tensor | None]:
        """The results, and a step of the extension's ``adam`` by those at the places ``gradients``.

        A thread that averages a gradient uses it at once, while its caches have it. Only where the
        graph ``replays``.
        """
        return self.graph.mean_and_step(arguments, self._parts, self._rows, adam, gradients)
