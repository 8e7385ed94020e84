"""A moment to come back to: the random numbers and the buffers that a critic would see now."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from wgan_fast.double_backward.independence import State


class Moment:
    """The random numbers of now, and a way to call a critic without a trace."""

    def __init__(self, critic: Callable[..., Any], device: torch.device) -> None:
        self._critic = critic
        self._random = torch.cuda if device.type == "cuda" else torch.random
        self._random_state = self._random.get_rng_state()

    @contextmanager
    def again(self) -> Iterator[None]:
        """In here, random numbers are the moment's; they and the buffers are put back after."""
        now = self._random.get_rng_state()
        self._random.set_rng_state(self._random_state)
        modules = State(self._critic)
        modules.lend_copies()
        try:
            yield
        finally:
            modules.put_back()
            self._random.set_rng_state(now)
