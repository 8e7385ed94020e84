"""CUDA graphs: warm up, capture, replay. Knows nothing of GANs.

A captured function launches all its kernels with one call. In exchange it reads and writes the same
memory every time, and must not wait for the device, nor branch on what is in it.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# PyTorch asks for calls on a side stream before a capture: libraries choose kernels and allocate
# workspaces in the first ones, which a capture must not see.
WARM_UP_CALLS = 3


class Graph(Protocol):
    """Something that captures a function and replays it."""

    def warm_up(self, function: Callable[[], T]) -> T:
        """Call the function as it will be captured, for real."""
        ...

    def capture(self, function: Callable[[], T]) -> T:
        """Write down what the function launches, without doing it; its results are the replays'."""
        ...

    def replay(self) -> None:
        """Do what was captured, on what is in its memory now."""
        ...


class CUDAGraph:
    """A :class:`torch.cuda.CUDAGraph` with a memory pool of its own.

    Args:
        device: where everything happens.
        generators: the random number generators that the function draws from besides the device's
            default one; each replay draws new numbers.
    """

    def __init__(self, device: torch.device, generators: Iterable[torch.Generator] = ()) -> None:
        self._device = device
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)  # type: ignore[no-untyped-call]
        self._side = torch.cuda.Stream(device)

    def warm_up(self, function: Callable[[], T]) -> T:
        """Call the function on a side stream."""
        here = torch.cuda.current_stream(self._device)
        self._side.wait_stream(here)
        with torch.cuda.stream(self._side):
            result = function()
        here.wait_stream(self._side)
        return result

    def capture(self, function: Callable[[], T]) -> T:
        """Capture the function on the side stream.

        Raises:
            RuntimeError: it does what a capture forbids: waits for the device (``.item()``), copies
                from pageable host memory, or uses a generator that is not registered.
        """
        with torch.cuda.device(self._device), torch.cuda.graph(self._graph, stream=self._side):
            return function()

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        self._graph.replay()


class StaticInput:
    """A tensor that a captured function reads: filled before each replay, never reallocated."""

    def __init__(self, like: Tensor) -> None:
        self.tensor = like.clone()

    def fill(self, source: Tensor) -> None:
        """New numbers, same memory."""
        self.tensor.copy_(source, non_blocking=True)
