"""Peak memory on a CPU as the allocator saw it: with what operators use inside themselves.

:mod:`bench.harness.memory` watches the tensors that pass between operators. A convolution may copy
its input to another layout and free the copy before it returns, which only the allocator knows.
Libraries that bring an allocator of their own, as oneDNN does for its scratchpads, are not seen.
"""

import os
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

# Read when the first profile starts; every one of them would print its stages.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")


def allocator_peak_bytes(run: Callable[[], Any]) -> int:
    """The most bytes that PyTorch's CPU allocator has given out during one run, above the start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        result = run()
    del result
    # The profiler's public results sum these up by operator; a peak needs them one by one, in time.
    events = profiled.profiler.kineto_results.events()
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    changes.sort(key=lambda change: change[0])
    live = peak = 0
    for _, change in changes:
        live += change
        peak = max(peak, live)
    return peak
