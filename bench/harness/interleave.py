"""Timing of several sides in one process, turn by turn.

A machine's speed drifts: its clock, its temperature, its other users. Two timings that are seconds
apart compare the machine with itself. Here every round times each side once, close together, and a
ratio is taken within a round only; the order within the rounds rotates and turns around, so that
whoever goes first has no advantage on the whole. A side runs once before it is timed: in a loop of
its own it would find its own memory in the caches and its own blocks with the allocator, and not,
as on a system whose fresh pages are dear, pay for what its rival gave back.

Ratios cancel drift, but not starvation. Where threads must share their cores with other processes,
every parallel loop waits for a turn of the scheduler, some milliseconds, and the times count loops
instead of work, with quartiles that look trustworthy. So the share of the time in which this
thread was running is taken as well.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

Timer = Callable[[Callable[[], Any], int], float]
"""``timer(run, repeats)``: seconds that ``repeats`` calls of ``run`` take together."""


@dataclass(frozen=True)
class Plan:
    """How long to measure one case.

    Attributes:
        rounds: the least number of rounds, however long they take.
        seconds: the time after which no further round starts, once there are ``rounds``.
        most_rounds: enough is enough.
        sample_seconds: how long one sample lasts at least; short runs are repeated within it.
        warmup_seconds: how long each side runs before anything is measured: ten calls at least of
            a step whose eleventh is replayed.
    """

    rounds: int = 15
    seconds: float = 3.0
    most_rounds: int = 200
    sample_seconds: float = 0.01
    warmup_seconds: float = 0.6


@dataclass(frozen=True)
class Timings:
    """What :func:`interleave` measured.

    Attributes:
        seconds: per call, by side; the i-th of each side is from the same round.
        repeats: calls in each sample, by side.
        running: the share of the samples' time in which the calling thread ran on a core; close to
            1 for work on an idle machine's CPU.
    """

    seconds: dict[str, list[float]]
    repeats: dict[str, int]
    running: float


@dataclass(frozen=True)
class Quartiles:
    """The middle half of some numbers."""

    q1: float
    median: float
    q3: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Quartiles":
        """The quartiles of ``numbers``; all three are the number where there is only one."""
        if len(numbers) == 1:
            return cls(numbers[0], numbers[0], numbers[0])
        return cls(*statistics.quantiles(numbers, n=4, method="inclusive"))


def wall_clock(run: Callable[[], Any], repeats: int) -> float:
    """The timer for work that is done when the call returns."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start


def cuda_events(run: Callable[[], Any], repeats: int) -> float:
    """The timer for work on a GPU: from an idle device to the end of the last kernel.

    The first event is recorded on an idle stream, so that time in which the device waits for the
    host to launch counts, as it does in a training loop.
    """
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def timer_for(device: torch.device) -> Timer:
    """The timer that sees all of the work on ``device``."""
    return cuda_events if device.type == "cuda" else wall_clock


def turn(names: Sequence[str], index: int) -> list[str]:
    """The order in round ``index``: each even round starts one side later, each odd one reverses.

    Two rounds that follow each other put every pair of sides in both orders.
    """
    shift = index // 2 % len(names)
    order = [*names[shift:], *names[:shift]]
    return order[::-1] if index % 2 else order


@contextmanager
def garbage_collection_between_rounds() -> Iterator[Callable[[], Any]]:
    """Collection is off within and is done by calling what this gives; it hits no side by chance.

    What is alive at the start is taken out of the collector's sight, or each collection would walk
    through all modules that were ever imported.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def repeats_for(run: Callable[[], Any], timer: Timer, seconds: float) -> int:
    """How often ``run`` must be called for one sample to last ``seconds``."""
    repeats = 1
    while True:
        # The shorter of two: a pause of the machine must not pass for slow work.
        taken = min(timer(run, repeats), timer(run, repeats))
        if taken >= seconds:
            return repeats
        wanted = math.ceil(1.1 * repeats * seconds / max(taken, 1e-9))
        repeats = min(max(wanted, repeats + 1), 10 * repeats)


def interleave(sides: Mapping[str, Callable[[], Any]], plan: Plan, timer: Timer) -> Timings:
    """Time ``sides`` round by round."""
    names = list(sides)
    for run in sides.values():
        start = time.perf_counter()
        while time.perf_counter() - start < plan.warmup_seconds:
            timer(run, 1)
    repeats = {name: repeats_for(run, timer, plan.sample_seconds) for name, run in sides.items()}
    samples: dict[str, list[float]] = {name: [] for name in names}
    ran = passed = 0.0
    with garbage_collection_between_rounds() as collect:
        start = time.perf_counter()
        index = 0
        while True:
            done = index >= plan.rounds and time.perf_counter() - start >= plan.seconds
            # Stop after both orders of a pair only.
            if index % 2 == 0 and (done or index >= max(plan.most_rounds, plan.rounds)):
                return Timings(samples, repeats, running=ran / passed if passed else 1.0)
            for name in turn(names, index):
                sides[name]()  # finds the caches and the allocator as another side left them
                ran, passed = ran - time.thread_time(), passed - time.perf_counter()
                samples[name].append(timer(sides[name], repeats[name]) / repeats[name])
                ran, passed = ran + time.thread_time(), passed + time.perf_counter()
            collect()
            index += 1


def speed_ups(baseline: Sequence[float], side: Sequence[float]) -> Quartiles:
    """How many times as fast ``side`` is as ``baseline``, from ratios within each round."""
    return Quartiles.of([slow / fast for slow, fast in zip(baseline, side, strict=True)])
