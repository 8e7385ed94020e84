"""Means over a logging interval, kept on the device: reading them is the trainer's only wait."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from wgan_fast.training.errors import NonFiniteLossError


class IntervalMean:
    """The mean of named 0-dim tensors since the last ``read``; ``add`` never waits for the device.

    A single infinite or NaN value makes the interval's mean infinite or NaN, so nothing is missed
    between two reads.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._total: Tensor | None = None
        self._count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds one step's values; every call between two reads must have the same names."""
        row = torch.stack(list(values.values()))
        self._names = tuple(values)
        self._total = row if self._total is None else self._total + row
        self._count += 1

    def read(self) -> dict[str, float]:
        """The means by name, {} where nothing was added; begins the next interval."""
        if self._total is None:
            return {}
        means = (self._total / self._count).tolist()
        self._total, self._count = None, 0
        return dict(zip(self._names, means, strict=True))


def require_finite(metrics: Mapping[str, float], step: int) -> None:
    """Raises where training has broken down."""
    broken = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if broken:
        seen = ", ".join(f"{name} = {value}" for name, value in broken.items())
        raise NonFiniteLossError(
            f"training broke down at or just before step {step}: {seen}. What was written up to "
            "then is kept. A smaller learning rate is the usual cure"
        )
