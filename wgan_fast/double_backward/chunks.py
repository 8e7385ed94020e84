"""A batch in slices: each contributes its share of every mean, and the sum is the batch's."""

from collections.abc import Callable, Iterator, Sequence
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
    half: bool = False
    """Whether float16 was among the values that led to the gradients."""
    digest: int | None = None
    """Of the critic's recordings, where no state was changed."""
    changed: Sequence[tuple[Tensor, Tensor]] = ()
    """Where state was changed: tensors, and what they were."""


def slices(samples: int, chunk_size: int | None) -> Iterator[slice]:
    """The batch's rows, at most ``chunk_size`` at a time."""
    step = samples if chunk_size is None else min(chunk_size, samples)
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def over(
    samples: int, chunk_size: int | None, compute: Callable[[slice, float], Computed]
) -> Computed:
    """``compute(slice, share)`` on every slice, added up; one slice's memory is alive at a time.

    ``share`` is the slice's part of the batch, by which ``compute`` multiplies its gradients.
    """
    parts = list(slices(samples, chunk_size))
    if len(parts) == 1:
        return compute(parts[0], 1.0)
    sums = Sums()
    totals: list[Tensor] = []
    rows: list[tuple[Tensor, ...]] = []
    digests: list[int | None] = []
    half = False
    for part in parts:
        share = (part.stop - part.start) / samples
        done = compute(part, share)
        for leaf, gradient in zip(done.leaves, done.gradients, strict=True):
            sums.add(leaf, gradient)
        means = [mean * share for mean in (done.value, *done.means)]
        totals = [a + b for a, b in zip(totals, means, strict=True)] if totals else means
        rows.append(done.rows)
        digests.append(done.digest)
        half = half or done.half
        del done, gradient
    return Computed(
        totals[0],
        [leaf for leaf, _ in sums.by_leaf.values()],
        [total for _, total in sums.by_leaf.values()],
        tuple(totals[1:]),
        tuple(torch.cat(column) for column in zip(*rows, strict=True)),
        half,
        digest_of(digests),
    )


def digest_of(slices: Sequence[int | None]) -> int | None:
    """The digest of a batch that was taken in slices; None where one of them has none."""
    return slices[0] if len(slices) == 1 else None if None in slices else hash(tuple(slices))


class Sums:
    """Gradients added up, leaf by leaf."""

    def __init__(self) -> None:
        self.by_leaf: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._owned: set[int] = set()

    def add(self, leaf: Tensor, gradient: Tensor | None) -> None:
        """One slice's gradient; None is zero."""
        key = id(leaf)
        _, before = self.by_leaf.get(key, (leaf, None))
        total = before if gradient is None else gradient
        if before is not None and gradient is not None:
            # The first sum is out of place: among a slice's gradients, a tensor may come twice.
            total = before.add_(gradient) if key in self._owned else before + gradient
            self._owned.add(key)
        self.by_leaf[key] = leaf, total
