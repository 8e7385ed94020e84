"""Floating point operations of a run, and how many of them a large matrix product does per second.

Counted by PyTorch's own formulas, those of :class:`torch.utils.flop_counter.FlopCounterMode`: a
multiplication and an addition of every matrix product and convolution, and nothing of the rest.
A convolution by Winograd's algorithm counts as any other: what it saves is in its time.
That class itself also follows modules, with hooks that forbid an ``autograd.grad`` within.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import wgan_fast  # noqa: F401 - whose operators are counted
from bench.harness.interleave import Timer

_GEMM_SIZE = {"cpu": 1024, "cuda": 8192}
_GEMM_SAMPLES = 5


def _of_kernels(maps: Tensor, kernels: Tensor) -> int:
    return 2 * maps.numel() * kernels[0].numel()


_OWN: dict[Any, Callable[..., int]] = {
    torch.ops.wgan_fast.winograd_gather: lambda x, w, *_, out_val: _of_kernels(out_val, w),
    torch.ops.wgan_fast.winograd_spread: lambda maps, w, *_, out_val: _of_kernels(maps, w),
    torch.ops.wgan_fast.winograd_weight: lambda maps, *_, out_val: _of_kernels(maps, out_val),
    torch.ops.wgan_fast.product: lambda a, *_, out_val: 2 * out_val.numel() * a.shape[1],
}


class _Flops(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func._overloadpacket
        formula = _OWN.get(packet) or flop_registry.get(packet)
        if formula is None:
            # What is recorded below autograd arrives whole, ``linear`` for instance.
            with self:
                result = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result
        result = func(*args, **kwargs)
        self.total += formula(*args, **kwargs, out_val=result)
        return result


def count_flops(run: Callable[[], Any]) -> int:
    """How many floating point operations one run takes."""
    with _Flops() as mode:
        run()
    return mode.total


def gemm_seconds(device: torch.device, timer: Timer) -> list[float]:
    """Seconds per floating point operation of a large float32 ``torch.mm``, some samples."""
    size = _GEMM_SIZE[device.type]
    a, b, out = (torch.ones(size, size, device=device) for _ in range(3))
    timer(lambda: torch.mm(a, b, out=out), 1)
    samples = [timer(lambda: torch.mm(a, b, out=out), 1) for _ in range(_GEMM_SAMPLES)]
    return [seconds / (2 * size**3) for seconds in samples]
