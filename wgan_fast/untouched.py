"""A place to try a critic in: whatever it does to the world is undone at the end."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.choice import Memory
from wgan_fast.double_backward.independence import State
from wgan_fast.live_memory import LiveStorages, tensors_in


@contextmanager
def untouched(critic: Callable[..., Any], device: torch.device) -> Iterator[None]:
    """In here a critic may be called, and recorded, at will.

    Put back at the end: PyTorch's random numbers, the critic's buffers, every other tensor that was
    there before and is written into, and what is remembered of critics. Not what the critic keeps
    in Python, such as a count of its calls.
    """
    devices = [device] if device.type == "cuda" else []
    state, journal = State(critic), _Journal()
    state.lend_copies()
    try:
        with Memory.blank(), torch.random.fork_rng(devices), journal:
            yield
    finally:
        journal.put_back()
        state.put_back()


class _Journal(LiveStorages):
    """Copies memory that is older than this mode before an operator writes into it.

    A module's buffers are lent out as copies; these are the tensors that nobody finds, behind a
    closure's list, say.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for tensor in _written(func, args, kwargs or {}):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._found and not self.made(tensor):
                self._found[storage._cdata] = storage, storage.clone()
        return super().__torch_dispatch__(func, types, args, kwargs)

    def put_back(self) -> None:
        """Give all memory that was written into the numbers that it had before."""
        for storage, before in self._found.values():
            storage.copy_(before)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors that an operator writes into."""
    for position, name in _places(func):
        yield from tensors_in([args[position] if position < len(args) else kwargs.get(name)])


@functools.cache
def _places(func: Any) -> list[tuple[int, str]]:
    """Where they stand among the arguments; a batch norm does not say so of its statistics."""
    return [
        (position, argument.name)
        for position, argument in enumerate(func._schema.arguments)
        if argument.is_write or argument.name in ("running_mean", "running_var")
    ]
