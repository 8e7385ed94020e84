"""Means over a logging interval, kept on the device: reading them is the trainer's only wait."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from wgan_fast.training.errors import NonFiniteLossError


class IntervalMean:
    """The mean of named 0-dim tensors since the last ``read``; ``add`` never waits for the device.

    A single infinite or NaN value makes the interval's mean infinite or NaN, so nothing is missed
    between two reads. A name that some steps do not have gets the mean over those that do.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds one step's values."""
        row = torch.stack(list(values.values()))
        if (names := tuple(values)) in self._sums:
            total, count = self._sums[names]
            self._sums[names] = total + row, count + 1
        else:
            self._sums[names] = row, 1

    def read(self) -> dict[str, float]:
        """The means by name, {} where nothing was added; begins the next interval."""
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, (row, count) in self._sums.items():
            for name, total in zip(names, row.tolist(), strict=True):
                totals[name] = totals.get(name, 0.0) + total
                counts[name] = counts.get(name, 0) + count
        self._sums = {}
        return {name: total / counts[name] for name, total in totals.items()}


def require_finite(metrics: Mapping[str, float], step: int) -> None:
    """Raises where training has broken down."""
    broken = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if broken:
        seen = ", ".join(f"{name} = {value}" for name, value in broken.items())
        raise NonFiniteLossError(
            f"training broke down at or just before step {step}: {seen}. What was written up to "
            "then is kept. A smaller learning rate is the usual cure"
        )
