"""The time of each side of each case, under pytest-benchmark."""

import pytest
import torch

from bench.harness.agreement import check_agreement
from bench.parameters import every_side, started


@every_side
@pytest.mark.benchmark(
    min_rounds=5, max_time=0.5, warmup=True, warmup_iterations=3, disable_gc=True
)
def test_speed(benchmark, case, side, device):
    """Seconds per call; GB/s in the extra information where the bytes are known."""
    for require in case.requires:
        require(device)
    run = started(case, side, device)
    baseline = next(iter(case.sides))
    runs = {baseline: case.start(baseline, device), side: run}
    check_agreement(runs, case.tolerance, device)

    def on_device():
        run()
        torch.cuda.synchronize()

    benchmark.group = f"{case.name}, {case.sizes}, {device.type}"
    benchmark(on_device if device.type == "cuda" else run)
    if case.bytes_moved and benchmark.enabled:
        rate = case.bytes_moved / benchmark.stats.stats.median / 1e9
        benchmark.extra_info["gigabytes_per_second"] = rate
