"""One case from its declaration to its numbers."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch

from bench.harness import memory
from bench.harness.agreement import check_agreement
from bench.harness.allocator import allocator_peak_bytes
from bench.harness.case import Case, CaseError, Run
from bench.harness.compilation import fresh_inductor
from bench.harness.flops import count_flops, gemm_seconds
from bench.harness.guards import check_calls
from bench.harness.interleave import Plan, interleave, timer_for
from bench.harness.results import CaseResult, SideResult

_REASON_LENGTH = 200


@dataclass(frozen=True)
class _Counted:
    """What does not depend on time."""

    peak_bytes: int | None
    operators: int | None
    allocator_peak_bytes: int | None
    flops: int | None


def _count(case: Case, name: str, device: torch.device) -> _Counted:
    # Each time a fresh problem: buffers that a side makes in its first call and keeps must count,
    # while what libraries set up once per process, which by now they have, must not.
    peak = memory.peak_bytes(case.start(name, device), device)
    allocator = None
    if device.type == "cpu":
        allocator = allocator_peak_bytes(case.start(name, device))
    # A step as a loop takes it, which is not the first.
    run = case.start(name, device)
    run()
    dispatched = memory.count(run).operators
    check_calls(name, case.must_call.get(name, ()), dispatched)
    seen = name not in case.compiled
    return _Counted(
        peak if seen or device.type == "cuda" else None,
        sum(dispatched.values()) if seen else None,
        allocator,
        count_flops(run) if case.forward else None,
    )


def _reason(error: Exception) -> str:
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first_line}"[:_REASON_LENGTH]


def _first_call(case: Case, name: str, device: torch.device, taken: dict[str, float]) -> Run:
    """Start a side and call it once, with nothing compiled in an earlier process."""
    start = time.perf_counter()
    with fresh_inductor() if name in case.compiled else nullcontext():
        run = case.start(name, device)
        run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    taken[name] = time.perf_counter() - start
    return run


def _ready(
    case: Case, device: torch.device
) -> tuple[Mapping[str, Run], Mapping[str, _Counted], dict[str, float], dict[str, str]]:
    """The sides to time, what was counted of them, their first calls' seconds, refused peers."""
    first: dict[str, float] = {}
    required = [name for name in case.sides if name not in case.peers]
    sides = {name: _first_call(case, name, device, first) for name in required}
    compared = sides
    if case.compared_on is not None:
        there = replace(case, problem=case.compared_on)
        compared = {name: there.start(name, device) for name in required}
    check_agreement(compared, case.tolerance, device)
    counted = {name: _count(case, name, device) for name in sides}

    baseline = next(iter(sides))

    def add(peer: str) -> str | None:
        try:
            run = _first_call(case, peer, device, first)
            check_agreement({baseline: sides[baseline], peer: run}, case.tolerance, device)
            counted[peer] = _count(case, peer, device)
        except Exception as error:  # a compiler raises whatever it likes
            return _reason(error)
        sides[peer] = run
        return None

    refused = {peer: reason for peer in case.peers if (reason := add(peer)) is not None}
    return sides, counted, first, refused


def _forward_flops(forward: Callable, problem: object) -> int:
    with torch.no_grad():
        return count_flops(lambda: forward(problem))


def measure(case: Case, device: torch.device, plan: Plan) -> CaseResult:
    """Check that the case is what it says, then measure memory and time.

    Raises:
        CaseError: the sides disagree or are not what they are said to be.
    """
    for require in case.requires:
        require(device)
    sides, counted, first, refused_peers = _ready(case, device)

    timer = timer_for(device)
    gemm = gemm_seconds(device, timer) if case.forward else []
    timings = interleave(sides, plan, timer)
    gemm += gemm_seconds(device, timer) if case.forward else []
    return CaseResult(
        case.name,
        case.sizes,
        case.bytes_moved,
        [
            SideResult(
                name,
                timings.seconds[name],
                timings.repeats[name],
                counted[name].peak_bytes,
                counted[name].operators,
                counted[name].allocator_peak_bytes,
                counted[name].flops,
                first[name],
            )
            for name in sides
        ],
        list(case.figures),
        # A thread that waits for a GPU does not run, and nothing is wrong with that.
        running=timings.running if device.type == "cpu" else None,
        refused_peers=refused_peers,
        forward_flops=_forward_flops(case.forward, case.problem(device)) if case.forward else None,
        gemm_flops_per_second=1 / min(gemm) if gemm else None,
    )


def measure_or_refuse(case: Case, device: torch.device, plan: Plan) -> CaseResult:
    """As :func:`measure`; a refused case becomes a row that says why, and others go on."""
    try:
        return measure(case, device, plan)
    except CaseError as refusal:
        return CaseResult(
            case.name,
            case.sizes,
            case.bytes_moved,
            figures=list(case.figures),
            refused=f"{type(refusal).__name__}: {refusal}",
        )
