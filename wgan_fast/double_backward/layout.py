"""Which samples stand where in a merged batch, and parts of what was computed of it."""

from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor

from wgan_fast import ops

# From this size on, rows are copied out of a batch rather than kept as a view that holds all of it;
# below, a copy takes longer than its memory is worth, unless the batch is a slice, to save memory.
_WORTH_A_COPY, _OF_A_SLICE = 1 << 20, 1 << 16


class Rows:
    """A range of a batch's samples, to cut tensors and nodes to."""

    def __init__(self, start: int, stop: int, total: int) -> None:
        self.start, self.stop, self.total = start, stop, total
        self.all = stop - start == total

    def of(self, tensor: Tensor) -> Tensor:
        """The rows of a tensor that has a whole number of rows per sample."""
        if self.all:
            return tensor
        per_sample = tensor.shape[0] // self.total
        return tensor[self.start * per_sample : self.stop * per_sample]

    def of_delta(self, delta: Any) -> Any:
        """The rows of a node's cotangent, or of each of its several."""
        if isinstance(delta, Tensor):
            return self.of(delta)
        return [None if part is None else self.of(part) for part in delta]

    def of_each(self, kept: list[Tensor | None]) -> list[Tensor | None]:
        """The rows of everything that a node keeps with its samples."""
        return [None if tensor is None else self.of(tensor) for tensor in kept]


class Layout(NamedTuple):
    """Which samples stand where in the batch."""

    batch: Tensor
    parts: list[Tensor]
    """The batch's equal parts, each of which could be a batch of its own."""
    real: Rows
    fake: Rows
    penalty: Rows
    """The points at which the gradient is penalised."""
    loss_only: Rows | None
    """Samples that enter the loss and not the penalty."""

    shared: bool
    """Whether the penalty's points are samples of the loss."""

    alpha: Tensor | None = None
    """Where the points are mixes α x + (1 − α) x̃: α, one for each."""

    @classmethod
    def of(cls, at: str, real: Tensor, fake: Tensor, drawn: Tensor | None) -> "Layout":
        """The penalty's points come last, so that what remains of a batch is one range."""
        if drawn is not None:  # α, or the points
            mix = at == "mix"
            batch = ops.merged_batch(real, fake, drawn) if mix else torch.cat((real, fake, drawn))
            layout = cls.with_points(real, fake, 1, batch)
            return layout._replace(alpha=drawn) if mix else layout
        first, second, every = _rows(real, 0, 1, 2), _rows(real, 1, 2, 2), _rows(real, 0, 2, 2)
        if at == "real":
            return cls(torch.cat((fake, real)), [fake, real], second, first, second, first, True)
        batch, parts = torch.cat((real, fake)), [real, fake]
        if at == "fake":
            return cls(batch, parts, first, second, second, first, True)
        return cls(batch, parts, first, second, every, None, True)

    @classmethod
    def apart(cls, at: str, real: Tensor, fake: Tensor) -> "Layout":
        """The penalty on samples of the loss, taken a second time."""
        points = {"real": [real], "fake": [fake], "both": [real, fake]}[at]
        return cls.with_points(real, fake, len(points), torch.cat((real, fake, *points)))

    @classmethod
    def with_points(cls, real: Tensor, fake: Tensor, points: int, batch: Tensor) -> "Layout":
        """The penalty on points of its own, which lie behind the loss's in the batch."""
        n = 2 + points
        real_rows, fake_rows = _rows(real, 0, 1, n), _rows(real, 1, 2, n)
        penalty, loss_only = _rows(real, 2, n, n), _rows(real, 0, 2, n)
        parts = [real, fake, *batch.chunk(n)[2:]]
        return cls(batch, parts, real_rows, fake_rows, penalty, loss_only, False)


def _rows(samples: Tensor, start: int, stop: int, parts: int) -> Rows:
    """From one part of a batch to another."""
    size = samples.shape[0]
    return Rows(start * size, stop * size, parts * size)


class Copies:
    """Rows that outlive their batch, each copied once however often it is kept."""

    def __init__(self, whole: bool) -> None:
        self._least = _WORTH_A_COPY if whole else _OF_A_SLICE
        self._made: dict[int, tuple[ref[Tensor], Tensor]] = {}

    def of(self, whole: Tensor, part: Tensor) -> Tensor:
        """``part`` of ``whole`` in memory of its own, if it is large."""
        if part is whole or part.numel() * part.element_size() < self._least:
            return part
        made_of, made = self._made.get(id(whole), (None, part))
        if (
            made_of is None or made_of() is not whole
        ):  # a number of a tensor that is gone comes again
            made = part.clone()
            self._made[id(whole)] = ref(whole), made
        return made
