"""Peak memory of a run, in bytes, and the operators that it dispatches.

The count is the package's own, which ``wgan_fast.explain`` tells users: see there what it sees.
"""

from wgan_fast.live_memory import Counted, count, peak_bytes

__all__ = ["Counted", "count", "peak_bytes"]
