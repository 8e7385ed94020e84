"""One case from its declaration to its numbers."""

import torch

from bench.harness import memory
from bench.harness.agreement import check_agreement
from bench.harness.allocator import allocator_peak_bytes
from bench.harness.case import Case, CaseError
from bench.harness.guards import check_calls
from bench.harness.interleave import Plan, interleave, timer_for
from bench.harness.results import CaseResult, SideResult


def measure(case: Case, device: torch.device, plan: Plan) -> CaseResult:
    """Check that the case is what it says, then measure memory and time.

    Raises:
        CaseError: the sides disagree or are not what they are said to be.
    """
    for require in case.requires:
        require(device)
    sides = {name: case.start(name, device) for name in case.sides}
    check_agreement(sides, case.tolerance, device)

    peaks, allocator_peaks, operators = {}, {}, {}
    # Each time a fresh problem: buffers that a side makes in its first call and keeps must count,
    # while what libraries set up once per process, which by now they have, must not.
    for name in case.sides:
        peaks[name] = memory.peak_bytes(case.start(name, device), device)
        if device.type == "cpu":
            allocator_peaks[name] = allocator_peak_bytes(case.start(name, device))
        dispatched = memory.count(case.start(name, device)).operators
        check_calls(name, case.must_call.get(name, ()), dispatched)
        operators[name] = sum(dispatched.values())

    timings = interleave(sides, plan, timer_for(device))
    return CaseResult(
        case.name,
        case.sizes,
        case.bytes_moved,
        [
            SideResult(
                name,
                timings.seconds[name],
                timings.repeats[name],
                peaks[name],
                operators[name],
                allocator_peaks.get(name),
            )
            for name in sides
        ],
        list(case.figures),
        # A thread that waits for a GPU does not run, and nothing is wrong with that.
        running=timings.running if device.type == "cpu" else None,
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
