"""A moment to come back to: the random numbers and the buffers that a critic would see now."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.independence import State

Changes = Sequence[tuple[Tensor, Tensor]]


class Moment:
    """The random numbers of now, and a way to call a critic without a trace."""

    def __init__(self, critic: Callable[..., Any], device: torch.device) -> None:
        self._critic = critic
        self._random = torch.cuda if device.type == "cuda" else torch.random
        self._random_state = self._random.get_rng_state()

    @contextmanager
    def again(self, changed: Changes = ()) -> Iterator[None]:
        """In here, random numbers are the moment's; they and the buffers are put back after.

        The buffers are those of now, but for what is given as ``changed``, with what it was before.
        """
        now = self._random.get_rng_state()
        self._random.set_rng_state(self._random_state)
        modules = State(self._critic)
        with _undone(changed):
            modules.lend_copies()
        try:
            yield
        finally:
            modules.put_back()
            self._random.set_rng_state(now)


@contextmanager
def _undone(changed: Changes) -> Iterator[None]:
    """In here, tensors are what they were; past autograd, which may keep them as they are now."""
    latest = [tensor.data.clone() for tensor, _ in changed]
    for tensor, before in reversed(changed):
        tensor.data.copy_(before)
    try:
        yield
    finally:
        for (tensor, _), now in zip(changed, latest, strict=True):
            tensor.data.copy_(now)
