"""What was measured: every raw sample, and the figures that follow from them."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.harness.case import Figure
from bench.harness.interleave import Quartiles, speed_ups

ROUNDS_TO_JUDGE = 15
"""With fewer rounds than this no speed-up is called met or missed."""
RUNNING_TO_JUDGE = 0.9
"""Nor where the measured thread ran for a smaller share of the time than this."""

WIDE = 0.2
"""The spread between the quartiles, relative to the median, from which a result is called noisy."""


@dataclass(frozen=True)
class SideResult:
    """One side of a case.

    Attributes:
        name: the side's name.
        seconds: per call, one number per round.
        repeats: calls in each sample.
        peak_bytes: the most memory that one call allocates, see :mod:`bench.harness.memory`.
            None where only the allocator sees it.
        operators: how many operators one call dispatches; None where they are compiled.
        flops: how many floating point operations one call takes; None where nobody asked.
        allocator_peak_bytes: the same peak with what operators use inside themselves; None on a
            GPU, where ``peak_bytes`` has that already.
        first_seconds: until a first call returned, with all that is made for it: graphs, compiled
            code. None where nobody asked.
    """

    name: str
    seconds: list[float]
    repeats: int
    peak_bytes: int | None
    operators: int | None
    allocator_peak_bytes: int | None = None
    flops: int | None = None
    first_seconds: float | None = None

    @property
    def median_seconds(self) -> float:
        """Seconds per call."""
        return Quartiles.of(self.seconds).median


@dataclass(frozen=True)
class CaseResult:
    """One case; the baseline is the first of ``sides``.

    Attributes:
        refused: why there are no sides.
        running: the share of the time in which the measured thread ran; None on a GPU.
        refused_peers: why each peer that is not among the sides is not.
        forward_flops: floating point operations of one forward pass over one batch.
        gemm_flops_per_second: those of a large matrix product, its fastest sample: a peak.
        name, sizes, bytes_moved, figures: the case's own.
    """

    name: str
    sizes: str
    bytes_moved: int | None = None
    sides: list[SideResult] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    refused: str | None = None
    running: float | None = None
    refused_peers: dict[str, str] = field(default_factory=dict)
    forward_flops: int | None = None
    gemm_flops_per_second: float | None = None

    def speed_up(self, side: SideResult) -> Quartiles:
        """How many times as fast as the baseline."""
        return speed_ups(self.sides[0].seconds, side.seconds)

    def pays_after(self, side: SideResult) -> int | None:
        """Calls after which the side has made up for its first one; None if it never does."""
        saved = self.sides[0].median_seconds - side.median_seconds
        if side.first_seconds is None or saved <= 0:
            return None
        return math.ceil(max(side.first_seconds - self.sides[0].median_seconds, 0) / saved)

    def memory_ratio(self, side: SideResult) -> float | None:
        """The side's peak over the baseline's; None where the baseline allocates nothing."""
        baseline, peak = self.sides[0].peak_bytes, side.peak_bytes
        return peak / baseline if baseline and peak is not None else None

    def allocator_ratio(self, side: SideResult) -> float | None:
        """As :meth:`memory_ratio`, by the allocator's count where there is one."""
        baseline, peak = self.sides[0].allocator_peak_bytes, side.allocator_peak_bytes
        return peak / baseline if baseline and peak is not None else None

    @property
    def starved(self) -> bool:
        """Whether other processes took the cores, so that no time here means anything."""
        return self.running is not None and self.running < RUNNING_TO_JUDGE

    def doubt(self, side: SideResult) -> str:
        """``"starved"``, ``"noisy"`` (the middle half of the ratios is wide), or nothing."""
        speed = self.speed_up(side)
        wide = speed.q3 - speed.q1 > WIDE * speed.median
        return "starved" if self.starved else "noisy" if wide else ""

    def forwards(self, side: SideResult) -> float | None:
        """The side's floating point operations in forward passes over one batch."""
        if side.flops is None or not self.forward_flops:
            return None
        return side.flops / self.forward_flops

    def gemm_fraction(self, side: SideResult) -> float | None:
        """The side's floating point operations per second over a large matrix product's."""
        if side.flops is None or not self.gemm_flops_per_second:
            return None
        return side.flops / side.median_seconds / self.gemm_flops_per_second

    def gigabytes_per_second(self, side: SideResult) -> float | None:
        """The bytes that must be moved over the median time."""
        return self.bytes_moved / side.median_seconds / 1e9 if self.bytes_moved else None

    def _against(self, figure: Figure, side: SideResult) -> Quartiles:
        """How many times as fast as the fastest of the sides that the figure names."""
        others = [other for other in self.sides if other.name in figure.against]
        if not others:
            return self.speed_up(side)
        strongest = min(others, key=lambda other: other.median_seconds)
        return speed_ups(strongest.seconds, side.seconds)

    def verdict(self, figure: Figure) -> str:
        """``"met"``, ``"missed"``, or why it cannot be said."""
        if self.refused:
            return "not measured"
        side = next(side for side in self.sides if side.name == figure.side)
        if figure.measure == "memory":
            ratio = self.memory_ratio(side)
            kept = side.peak_bytes == 0 if ratio is None else ratio <= figure.bound
        elif len(side.seconds) < ROUNDS_TO_JUDGE:
            return "too few rounds"
        elif self.starved:
            return "machine busy"
        else:
            kept = self._against(figure, side).median >= figure.bound
        return "met" if kept else "missed"


@dataclass(frozen=True)
class Results:
    """One run of the benchmarks: where and when, and every case."""

    stamp: dict[str, Any]
    cases: list[CaseResult]

    @property
    def not_met(self) -> list[str]:
        """The figures that were missed or could not be judged, in words."""
        return [
            f"{verdict}: {case.name}, {figure.side}, {figure}"
            for case in self.cases
            for figure in case.figures
            if (verdict := case.verdict(figure)) != "met"
        ]

    @property
    def peers_not_measured(self) -> list[str]:
        """The peers that could not run, and why."""
        return [
            f"not measured: {case.name}, {peer}: {reason}"
            for case in self.cases
            for peer, reason in case.refused_peers.items()
        ]

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Results":
        """What :meth:`write` wrote."""
        data = json.loads(path.read_text())
        cases = [
            CaseResult(
                **{
                    **case,
                    "sides": [SideResult(**side) for side in case["sides"]],
                    "figures": [
                        Figure(**{**figure, "against": tuple(figure.get("against", ()))})
                        for figure in case["figures"]
                    ],
                }
            )
            for case in data["cases"]
        ]
        return cls(data["stamp"], cases)
