"""What stands in for a CUDA graph: captures ATen ops on static memory and replays them there.

As on a GPU, a capture does not do what it writes down, and a replay knows addresses alone: it runs
no Python of the function, and reads and writes where the captured ops did. What a capture forbids
raises :class:`ForbiddenError`: reading a number, and with it every branch on one; a tensor that
comes from the host; and, at a replay, memory that has moved.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

aten = torch.ops.aten

_READS = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}
_READS |= {aten.nonzero.default, aten.item.default, aten.unique_dim.default, aten._unique2.default}
_READS |= {aten.masked_select.default}
_FROM_HOST = {aten.lift_fresh.default, aten.lift_fresh_copy.default}


class ForbiddenError(RuntimeError):
    """Something that a CUDA graph's capture, or its replay, does not allow."""


def _address(tensor):
    return tensor.untyped_storage().data_ptr()


class CaptureRecorder:
    """A :class:`wgan_fast.cuda_graph.Graph` on a CPU."""

    def __init__(self):
        self.replays = 0
        self._tape = []
        self._outside = {}

    def warm_up(self, function):
        return function()

    def capture(self, function):
        mode = _Capture()
        random_state = torch.get_rng_state()
        try:
            with mode:
                result = function()
        finally:
            mode.undo()
            torch.set_rng_state(random_state)
        self._tape = mode.tape
        self._outside = mode.outside
        return result

    def replay(self):
        for tensor, address in self._outside.values():
            if _address(tensor) != address:
                raise ForbiddenError("memory that the capture read or wrote has been reallocated")
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            for op, args, kwargs, outputs in self._tape:
                # Generators advance, as they do in a replay of a graph that they belong to.
                for static, fresh in zip(outputs, _tensors(op(*args, **kwargs)), strict=True):
                    if _address(static) != _address(fresh):
                        static.copy_(fresh)
        self.replays += 1


def _tensors(result):
    return [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]


class _Capture(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.tape = []
        self.outside = {}
        self._before = {}
        self._made = {}
        self._generators = {}

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if op in _READS:
            raise ForbiddenError(f"{op} reads a number, which waits for the device")
        if op in _FROM_HOST:
            raise ForbiddenError(f"{op} brings a tensor from the host")
        for tensor in _tensors((args, kwargs)):
            storage = tensor.untyped_storage()._cdata
            if storage not in self._made and storage not in self.outside:
                self.outside[storage] = tensor, _address(tensor)
                self._before[storage] = tensor, tensor.detach().clone()
        for generator in [g for g in kwargs.values() if isinstance(g, torch.Generator)]:
            self._generators.setdefault(id(generator), (generator, generator.get_state()))
        result = op(*args, **kwargs)
        outputs = _tensors(result)
        for tensor in outputs:
            storage = tensor.untyped_storage()._cdata
            if storage not in self.outside:
                self._made[storage] = tensor  # kept: its address is its own until the last replay
        self.tape.append((op, args, kwargs, outputs))
        return result

    def undo(self):
        """A capture writes down; nothing has happened."""
        with torch.no_grad():
            for tensor, before in self._before.values():
                tensor.copy_(before)
        for generator, state in self._generators.values():
            generator.set_state(state)
