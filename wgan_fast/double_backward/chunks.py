"""A batch in slices: each contributes its share of every mean, and the sum is the batch's."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Computed(NamedTuple):
    """A mean over samples, its gradients in the leaves it depends on, and what is reported."""

    value: Tensor
    leaves: list[Tensor]
    gradients: list[Tensor | None]
    means: tuple[Tensor, ...]
    """Scalars, means over the samples."""
    rows: tuple[Tensor, ...]
    """One number per sample."""


def slices(samples: int, chunk_size: int | None) -> Iterator[slice]:
    """The batch's rows, at most ``chunk_size`` at a time."""
    step = samples if chunk_size is None else min(chunk_size, samples)
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def over(samples: int, chunk_size: int | None, compute: Callable[[slice], Computed]) -> Computed:
    """``compute`` on every slice, put together; only one slice's memory is alive at a time."""
    parts = list(slices(samples, chunk_size))
    if len(parts) == 1:
        return compute(parts[0])
    leaves: dict[int, Tensor] = {}
    sums: dict[int, Tensor | None] = {}
    totals: list[Tensor] = []
    rows: list[tuple[Tensor, ...]] = []
    for part in parts:
        share = (part.stop - part.start) / samples
        done = compute(part)
        for leaf, gradient in zip(done.leaves, done.gradients, strict=True):
            leaves[id(leaf)] = leaf
            before = sums.get(id(leaf))
            if gradient is not None:
                scaled = gradient * share
                sums[id(leaf)] = scaled if before is None else before.add_(scaled)
            else:
                sums.setdefault(id(leaf), None)
        means = [mean * share for mean in (done.value, *done.means)]
        totals = [a + b for a, b in zip(totals, means, strict=True)] if totals else means
        rows.append(done.rows)
        del done, gradient
    return Computed(
        totals[0],
        list(leaves.values()),
        [sums[number] for number in leaves],
        tuple(totals[1:]),
        tuple(torch.cat(column) for column in zip(*rows, strict=True)),
    )
