"""What is written on a tensor while a critic is recorded: whose value it is."""

from torch import Tensor

# No derivative passes a constant. A tainted one was made from the input's numbers all the same (a
# comparison, a sign): what mixes its rows mixes samples.
# A condition was given with the samples, a row for each, as their labels: it is the same whatever
# the input's numbers are, and has to be cut with them. Where an op brings several of its rows
# together, the result is mixed: Python may read it, but no sample may be touched by it.
CONSTANT, TAINTED, CONDITION, MIXED = -1, -2, -3, -4
_NOTHING: tuple[None, int] = (None, CONSTANT)


def set_mark(tensor: Tensor, active: list[bool], value: int) -> None:
    """Note on ``tensor`` that it is ``value`` of the recording whose values ``active`` describes.

    That list stands for the recording: it refers to no tensor, so no cycle comes about, which the
    garbage collector could not see once it runs through a view and its base.
    """
    tensor._wgan_fast = (active, value)  # type: ignore[attr-defined]


def mark_of(tensor: Tensor) -> tuple[list[bool] | None, int]:
    """The recording and the value that were noted; (None, CONSTANT) on a tensor without a note."""
    return getattr(tensor, "_wgan_fast", _NOTHING)


def both(one: int, other: int) -> int:
    """The mark of memory that holds numbers of two marks, neither of them a value."""
    return next(mark for mark in (MIXED, TAINTED, CONDITION, CONSTANT) if mark in (one, other))


def carries_samples(tensor: Tensor) -> bool:
    """Whether a tensor's numbers may depend on the critic's input, or come with its samples."""
    active, value = mark_of(tensor)
    return active is not None and (value < CONSTANT or (value >= 0 and active[value]))
