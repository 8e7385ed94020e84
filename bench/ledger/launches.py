"""Kernel launches per critic step: the ops that a step dispatches and that compute something.

Counted on a CPU, where the same ops are dispatched but for those that only a CPU is faster with,
which are turned off. A view computes nothing, nor does an
allocation; every other op is one launch on a GPU, and some, such as a convolution's backward, are
more.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.critic_steps import frozen, with_gradients
from bench.critics import DCGANS, RESNETS, Critic
from wgan_fast import critic_loss, reference
from wgan_fast.double_backward import few_channels, memory_format, whole_image, winograd

_ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
_BATCH = 4  # the count is that of any larger one


class _Launches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        key = torch._C.DispatchKey.CompositeImplicitAutograd
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key):
            with self:  # ``linear`` arrives whole where autograd is off
                return func.decompose(*args, **kwargs)
        if not func.is_view and func._schema.name.split("::")[1] not in _ALLOCATIONS:
            self.ops[func.name()] += 1
        return func(*args, **kwargs)


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    with ExitStack() as ways, patch.object(memory_format, "_fast", lambda _: False):
        for way in (few_channels, whole_image, winograd):
            ways.enter_context(patch.object(way, "suits", lambda *_: False))
        yield


def _count(run: Callable[[], Any]) -> int:
    with _Launches() as mode:
        run()
    return mode.ops.total()


@cache
@_as_on_a_gpu()
def of(critic: Critic) -> dict[str, int]:
    """Launches of a step, loss and gradients without the optimiser, by who takes it."""
    critic = critic._replace(batch=_BATCH)

    def problem() -> Any:
        return critic.problem(torch.device("cpu"))

    textbook, ours = problem(), problem()
    step = frozen(compile=False)(problem())
    of_textbook = with_gradients(
        lambda p: reference.critic_loss(p.critic, p.real, p.fake, p.alpha, weight=10.0)
    )
    of_ours = with_gradients(
        lambda p: critic_loss(p.critic, p.real, p.fake, alpha=p.alpha, weight=10.0)
    )
    of_ours(ours)  # what a first call finds out about a critic is not launched again
    return {
        "reference": _count(lambda: of_textbook(textbook)),
        "`critic_loss`": _count(lambda: of_ours(ours)),
        "`freeze`": _count(step.run),
    }


CRITICS = (DCGANS[1], RESNETS[0])
