"""What a study is: something to measure, a picture of it, and what follows from the numbers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

Measured = TypeVar("Measured")
"""A dataclass of plain numbers, strings and lists of them: what is written as JSON."""


@dataclass(frozen=True)
class Finding:
    """One expectation held against the numbers."""

    claim: str
    """What was expected, as a sentence."""
    seen: bool
    """Whether the numbers show it."""
    measured: str
    """The numbers that decide."""


@dataclass(frozen=True)
class Conditions:
    """What a study measures under."""

    steps: int
    seed: int
    device: torch.device
    console: Console

    def count(self, label: str) -> Iterator[int]:
        """1, 2, ..., steps, with a progress bar where somebody watches."""
        numbers = range(1, self.steps + 1)
        return iter(
            track(
                numbers,
                description=label,
                console=self.console,
                disable=not self.console.is_terminal,
            )
        )


@dataclass(frozen=True)
class Study(Generic[Measured]):
    """An exercise of the field: claim, measurement, verdict, picture.

    ``findings`` looks at numbers alone, so whoever has the JSON can judge again; what it says of
    made-up numbers is what the tests ask.
    """

    name: str
    claim: str
    """What is claimed, in a line."""
    source: str
    """The paper that claims it."""
    steps: int
    """Default of ``--steps``."""
    measure: Callable[[Conditions], Measured]
    findings: Callable[[Measured], list[Finding]]
    draw: Callable[[Measured], Figure]


def verdict(study: Study[Any], findings: list[Finding]) -> str:
    """The findings as text for a terminal, the summary last."""
    lines = [f"{study.name}: {study.claim} ({study.source})"]
    for finding in findings:
        mark = "seen    " if finding.seen else "NOT SEEN"
        lines.append(f"  {mark}  {finding.claim}: {finding.measured}")
    seen = sum(finding.seen for finding in findings)
    if seen == len(findings):
        summary = "as claimed"
    elif seen:
        summary = f"in part as claimed ({seen} of {len(findings)})"
    else:
        summary = "the expected effect was not seen"
    return "\n".join([*lines, f"verdict: {summary}"])
