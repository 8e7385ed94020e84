"""Run a critic once and write down every ATen op that a derivative can pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_fast.critic_calls import CriticCall
from wgan_fast.double_backward.choice import Memory
from wgan_fast.double_backward.errors import CrossSample, Unsupported
from wgan_fast.double_backward.marks import CONDITION
from wgan_fast.double_backward.memory_format import ChannelsLast
from wgan_fast.double_backward.recorder import Recorder
from wgan_fast.double_backward.recording import Recording

_sees_strides = Memory()


def record(
    critic: Callable[[Tensor], Any],
    x: Tensor,
    rule_of: Callable[[Any], Any],
    rows_apart: bool = False,
    alpha: Tensor | None = None,
) -> Recording:
    """Call ``critic`` on ``x`` and record it.

    With ``alpha``, ``x`` is the merged batch of real samples, fake samples and their mixes by α.
    If it raises, the critic's state and the random numbers are as they were before the call.

    Raises:
        Unsupported: something in the critic cannot be recorded exactly.
        CrossSample: with ``rows_apart``, samples are mixed or the critic has state.
    """
    try:
        return _in_either_layout(critic, x, rule_of, x.shape[0] if rows_apart else 0, alpha)
    except (CrossSample, Unsupported, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if rows_apart:
            # Its batch may be tied to the size it was made for: labels in a closure, say.
            raise CrossSample(f"the critic fails on a batch of another size: {error}") from error
        raise


def layout_for(critic: Callable[[Tensor], Any], x: Tensor) -> ChannelsLast | None:
    """The layout to record a critic in; None for the one that it gives its tensors itself."""
    return ChannelsLast() if ChannelsLast.suits(x) and not _sees_strides.get(critic) else None


def _in_either_layout(
    critic: Callable[[Tensor], Any],
    x: Tensor,
    rule_of: Callable[[Any], Any],
    samples: int,
    alpha: Tensor | None,
) -> Recording:
    layout = layout_for(critic, x)
    if layout is not None:
        try:
            return record_by(critic, x, Recorder(rule_of, samples, layout, alpha))
        except (CrossSample, torch.OutOfMemoryError):
            raise
        except Exception:
            if not layout.used:
                raise
        # Whether it was the strides, a call without will tell.
        _sees_strides.set(critic, True)
    return record_by(critic, x, Recorder(rule_of, samples, alpha=alpha))


def record_by(critic: Callable[[Tensor], Any], x: Tensor, recorder: Recorder) -> Recording:
    """:func:`record`, by a given recorder."""
    x = x.detach().view_as(x)  # a new tensor object, to carry this recording's mark
    recorder.mark(x, recorder.recording.input)
    random = torch.cuda if x.device.type == "cuda" else torch.random
    random_state = random.get_rng_state()
    if recorder.samples and isinstance(critic, CriticCall):
        critic = critic.repeated(len(x))
        for condition in critic.conditions:
            recorder.mark(condition, CONDITION)
    try:
        with seen_by(recorder):
            scores = critic(x)
        if recorder.samples and recorder.recording.stateful:
            raise CrossSample("the critic changes its own state in every call")
        return recorder.finish(scores)
    except Exception:
        recorder.roll_back()
        random.set_rng_state(random_state)
        raise


@contextmanager
def seen_by(mode: TorchDispatchMode) -> Iterator[None]:
    """In here every op goes through ``mode``, and none through autograd."""
    caches_casts, caches_weights = torch.is_autocast_cache_enabled(), parametrize._cache_enabled
    # A cached cast of a weight, or a computed weight of ``parametrize.cached()``, would outlive the
    # recording, without autograd knowing of it.
    torch.set_autocast_cache_enabled(False)
    parametrize._cache_enabled = 0
    try:
        with torch.enable_grad(), torch._C._AutoDispatchBelowAutograd(), mode:
            yield
    finally:
        torch.set_autocast_cache_enabled(caches_casts)
        parametrize._cache_enabled = caches_weights
