"""The peak memory and the operators of each side of each case, under pytest-benchmark."""

import pytest

from bench.harness.guards import check_calls
from bench.harness.memory import count, peak_bytes
from bench.parameters import every_side, started


@every_side
@pytest.mark.benchmark(group="peak memory: see below; the time is that of counting it")
def test_memory(benchmark, record_peak, case, side, device):
    """Bytes and operators go into the extra information, and bytes into the summary."""
    for require in case.requires:
        require(device)
    run = started(case, side, device)
    run()
    dispatched = count(run).operators
    check_calls(side, case.must_call.get(side, ()), dispatched)

    peak = benchmark.pedantic(peak_bytes, args=(case.start(side, device), device))

    if side in case.compiled and device.type == "cpu":
        return  # out of this count's sight
    record_peak(peak)
    benchmark.extra_info["peak_bytes"] = peak
    benchmark.extra_info["operators"] = sum(dispatched.values())
