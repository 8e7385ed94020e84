"""What is written on a tensor while a critic is recorded: whose value it is."""

from typing import Any

from torch import Tensor

# No derivative passes a constant. A tainted one was made from the input's numbers all the same (a
# comparison, a sign): what mixes its rows mixes samples.
CONSTANT, TAINTED = -1, -2
_NOTHING = (None, CONSTANT)


def set_mark(tensor: Tensor, recording: Any, value: int) -> None:
    """Note on ``tensor`` that it is ``value`` of ``recording``."""
    tensor._wgan_fast = (recording, value)  # type: ignore[attr-defined]


def mark_of(tensor: Tensor) -> tuple[Any, int]:
    """The recording and the value that were noted; (None, CONSTANT) on a tensor without a note."""
    return getattr(tensor, "_wgan_fast", _NOTHING)


def carries_samples(tensor: Tensor) -> bool:
    """Whether a tensor's numbers may depend on the critic's input."""
    recording, value = mark_of(tensor)
    return recording is not None and (value == TAINTED or (value >= 0 and recording.active[value]))
