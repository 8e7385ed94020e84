"""Peak memory of a run, in bytes, and the operators that it dispatches.

On a CPU nobody counts bytes for us, so a dispatch mode does: it sees the result of every operator,
below autograd, adds the size of each storage it has not seen and subtracts it when the storage
dies, whoever held it last, an autograd graph for instance. Views and in-place results share their
input's storage and add nothing. What was there before the run counts neither when it is used nor
when it is freed: the peak is the most that the run itself has allocated at one time. What an
operator allocates and frees within itself, such as a convolution's workspace, is not seen.

On a GPU the caching allocator keeps the count, workspaces included.
"""

import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# torch.tensor(...) makes its tensor out of any operator's sight and hands it to this one, whose
# input would otherwise pass for one that was there before.
_INTRODUCES_ITS_INPUT = "aten::lift_fresh"


@dataclass(frozen=True)
class Counted:
    """What a run used.

    Attributes:
        peak_bytes: the most bytes that storages made by the run had at one time.
        kept_bytes: how many of them are alive after the run.
        operators: how often each operator was dispatched, by ``namespace::name``.
    """

    peak_bytes: int
    kept_bytes: int
    operators: Counter[str]


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operator's arguments or results, and in the lists among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def _storages(values: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    return (tensor.untyped_storage() for tensor in tensors_in(values))


class LiveStorages(TorchDispatchMode):
    """Counts operators, and the bytes of living storages that appeared under this mode."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.live_bytes = self.peak_bytes = 0
        # By the address of the storage's C++ object.
        self._watches: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._before: dict[int, int] = {}
        self._counted: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.name()
        self.operators[name.split(".")[0]] += 1
        inputs = list(_storages((args, *kwargs.values())))
        if not name.startswith(_INTRODUCES_ITS_INPUT):
            for storage in inputs:
                self._watch(storage, before=storage.nbytes())
        result = func(*args, **kwargs)
        # The inputs again: resize_ and out= may have let them grow.
        for storage in (*inputs, *_storages((result,))):
            self._watch(storage, before=0)
            self._count(storage)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return result

    def _watch(self, storage: torch.UntypedStorage, before: int) -> None:
        key = storage._cdata
        if key in self._watches:
            return
        # A storage's Python object lives as long as the storage itself, whoever holds that: this is
        # called when the memory is given back, before its address can be used again.
        self._watches[key] = weakref.ref(storage, lambda _: self._forget(key))
        self._before[key], self._counted[key] = before, 0

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        bytes_now = max(storage.nbytes() - self._before[key], 0)
        self.live_bytes += bytes_now - self._counted[key]
        self._counted[key] = bytes_now

    def _forget(self, key: int) -> None:
        self.live_bytes -= self._counted.pop(key)
        del self._watches[key], self._before[key]

    def made(self, tensor: Tensor) -> bool:
        """Whether a tensor's memory appeared under this mode."""
        return self._before.get(tensor.untyped_storage()._cdata) == 0


def count(run: Callable[[], Any]) -> Counted:
    """Run once under the dispatch mode. Exact on a CPU; on a GPU see :func:`peak_bytes`.

    The garbage collector is off meanwhile, so that a reference cycle counts for as long as it would
    stay without luck.
    """
    mode = LiveStorages()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with mode:
            result = run()
        kept = mode.live_bytes
        del result
    finally:
        if was_enabled:
            gc.enable()
    return Counted(mode.peak_bytes, kept, mode.operators)


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """The most bytes that one run has allocated on ``device`` at one time, above the start."""
    if device.type != "cuda":
        return count(run).peak_bytes
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    start = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - start
