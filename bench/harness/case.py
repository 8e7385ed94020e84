"""A case: the same work written several ways, and what is claimed about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Run = Callable[[], Any]
"""One side's work, ready to go; returns tensors in any nesting, for the sides to be compared."""


class CaseError(Exception):
    """The case cannot be measured honestly here, so that it is not measured at all."""


class WrongImplementationError(CaseError):
    """A side would run something else than what its name says, a fallback for instance."""


class DisagreementError(CaseError):
    """Two sides compute different results, so that their times cannot be compared."""


@dataclass(frozen=True)
class Figure:
    """A bound that one side must keep against the baseline.

    Attributes:
        side: the side's name.
        measure: ``"speed-up"`` (baseline's time over the side's, median) or ``"memory"`` (the
            side's peak bytes over the baseline's).
        bound: the least speed-up, or the most memory.
        against: a speed-up over the fastest of these sides in the place of the baseline; those
            that could not be measured do not count.
    """

    side: str
    measure: Literal["speed-up", "memory"]
    bound: float
    against: tuple[str, ...] = ()

    def __str__(self) -> str:
        sign = "≥" if self.measure == "speed-up" else "≤"
        over = f" over {' and '.join(self.against)}" if self.against else ""
        return f"{self.measure}{over} {sign} {self.bound:g}"


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: unique, as ``claim/subject``; ``--only`` looks in it.
        sizes: what a reader must know of the problem's size.
        problem: from a device to the tensors and modules that are worked on, with the same numbers
            in every call. Each side has its own, so that neither finds its data in a cache where
            the other has left it, nor works on what the other has changed.
        sides: from a name to the work on a problem, the baseline first. Work can be repeated, and
            leaves no gradients behind.
        prepare: what a side does to a problem of its own before anything is measured: another
            memory format, a step compiled.
        peers: sides that are there to be compared with and owe nothing. One that cannot run here
            is reported with its reason, and the others are measured.
        compiled: sides whose operators and memory a dispatch mode does not see; the allocator's
            count is all there is.
        forward: one forward pass over one batch of a problem, the F in which the table counts.
        bytes_moved: what any implementation must at least read and write, each byte once; the
            formula behind the table's GB/s.
        figures: what must be met.
        requires: called with the device before anything else; each raises
            :class:`WrongImplementationError` where the case would measure a fallback.
        must_call: operators, as ``namespace::name``, that a side must be seen to dispatch.
        tolerance: how far the results may differ, see :mod:`bench.harness.agreement`.
        devices: where the case makes sense.
        compared_on: another problem, on which the sides are compared before they are timed: the
            same in float64, where what is timed amplifies float32's rounding.
    """

    name: str
    sizes: str
    problem: Callable[[torch.device], Any]
    sides: Mapping[str, Callable[[Any], Any]]
    prepare: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    peers: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()
    forward: Callable[[Any], Any] | None = None
    bytes_moved: int | None = None
    figures: tuple[Figure, ...] = ()
    requires: tuple[Callable[[torch.device], None], ...] = ()
    must_call: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tolerance: float = 1e-5
    devices: tuple[str, ...] = ("cpu", "cuda")
    compared_on: Callable[[torch.device], Any] | None = None

    def start(self, side: str, device: torch.device) -> Run:
        """The side's work on a problem of its own, which is made here."""
        work, problem = self.sides[side], self.problem(device)
        if side in self.prepare:
            problem = self.prepare[side](problem)
        return lambda: work(problem)
