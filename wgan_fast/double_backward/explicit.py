"""``backend="explicit"``: losses whose gradients are computed already, by first-order passes."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wgan_fast.arguments import check_scores
from wgan_fast.critic_calls import measured, of_rows
from wgan_fast.double_backward import half_precision, merged
from wgan_fast.double_backward.choice import Memory
from wgan_fast.double_backward.chunks import Computed, over
from wgan_fast.double_backward.errors import Independent
from wgan_fast.double_backward.layout import Layout
from wgan_fast.double_backward.moment import Moment
from wgan_fast.double_backward.passes import (
    Cotangents,
    input_gradient,
    leaf_gradients,
    parameter_gradients,
)
from wgan_fast.double_backward.record import record
from wgan_fast.double_backward.replays import replayed
from wgan_fast.double_backward.rules import rule_of
from wgan_fast.objectives import NAMED
from wgan_fast.ops import accumulation_dtype
from wgan_fast.penalties import BETWEEN, LossSettings, Penalty

Critic = Callable[[Tensor], Tensor]
Again = Callable[..., Tensor]
"""``again(changed)``: a value with a graph of autograd's, by the state from before some changes."""


class Explicit(torch.autograd.Function):
    """A value and its gradients, computed already; ``backward`` scales them by what comes in.

    ``apply(value, gradients, again, *leaves)``: a leaf's gradient is None where the value does not
    depend on it; ``again()`` computes the value with a graph of autograd's, for whoever
    differentiates twice, or raises.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, value: Tensor, gradients: list[Tensor | None], again: Again, *leaves: Tensor
    ) -> Tensor:
        ctx.gradients, ctx.again, ctx.leaves = gradients, again, leaves
        ctx.versions = [leaf._version for leaf in leaves]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Any:  # type: ignore[override]  # noqa: D102
        if ctx.gradients is None:
            raise RuntimeError(
                "backward through this loss a second time: its gradients were handed over by the "
                "first; retain_graph=True keeps them"
            )
        if torch.is_grad_enabled():  # create_graph=True
            if [leaf._version for leaf in ctx.leaves] != ctx.versions:
                raise RuntimeError(
                    "create_graph=True: a parameter was modified after the loss was computed"
                )
            wanted = [
                leaf for leaf, g in zip(ctx.leaves, ctx.gradients, strict=True) if g is not None
            ]
            twice = iter(torch.autograd.grad(ctx.again(), wanted, incoming, create_graph=True))
            gradients = [None if gradient is None else next(twice) for gradient in ctx.gradients]
            return (None, None, None, *gradients)
        retain_graph = torch._C._autograd._get_current_graph_task_keep_graph()
        # loss.backward(); on a CPU, reading what comes in costs nothing, unless it is being traced.
        traced = torch._C._len_torch_dispatch_stack() > 0
        if incoming.device.type == "cpu" and not traced and incoming == 1:
            gradients, ctx.gradients = _apart(ctx.gradients), None
            if retain_graph:  # who gets them may write into them, and ask again
                ctx.gradients = [None if g is None else g.clone() for g in gradients]
            return (None, None, None, *gradients)
        gradients = [
            None if gradient is None else gradient * incoming.to(gradient.dtype)
            for gradient in ctx.gradients
        ]
        return (None, None, None, *gradients)


def _apart(gradients: list[Tensor | None]) -> list[Tensor | None]:
    """No two in the same memory, as the gradients of the summands of a weight are."""
    taken: set[int] = set()
    result = []
    for gradient in gradients:
        if gradient is not None:
            memory = gradient.untyped_storage()._cdata
            gradient = gradient.clone() if memory in taken else gradient
            taken.add(memory)
        result.append(gradient)
    return result


def attach(done: Computed, again: Again) -> Tensor:
    """A value with its gradients, as a tensor that ``backward`` can be called on."""
    if not done.leaves:
        return done.value
    once_more = partial(again, done.changed)
    return Explicit.apply(done.value, done.gradients, once_more, *done.leaves)


def gradients_of(loss: Tensor) -> dict[int, Tensor | None] | None:
    """The gradients that a loss of this engine holds, by their leaves' ids; None for another's."""
    made_by: Any = loss.grad_fn
    backward: Any = Explicit._backward_cls  # type: ignore[attr-defined]
    if type(made_by) is not backward:
        return None
    return dict(zip(map(id, made_by.leaves), _apart(made_by.gradients), strict=True))


_steep = Memory()


def within_range(
    critic: Critic,
    x: Tensor,
    chunk_size: int | None,
    on: Callable[[slice, float, float], Computed],
) -> Computed:
    """``on(slice, share, largest scale)`` on all slices, once more if float16 was too narrow."""
    moment = Moment(critic, x.device)

    def with_scale(largest: float) -> Computed:
        return over(x.shape[0], chunk_size, lambda part, share: on(part, share, largest))

    with torch.no_grad():
        if _steep.get(critic):
            return with_scale(1.0)
        done = with_scale(half_precision.LARGEST_SCALE)
        if done.half and half_precision.overflowed(done.value, done.gradients):
            _steep.set(critic, True)
            with moment.again(done.changed):
                done = with_scale(1.0)
    return done


def gradient_penalty(
    critic: Critic,
    x: Tensor,
    penalty: Penalty,
    chunk_size: int | None,
    again: Again,
) -> tuple[Tensor, Tensor, Tensor]:
    """(mean penalty with its gradients, norms, penalties) at the points ``x``.

    Raises:
        Independent: the score does not depend on the input.
        Unsupported: the critic cannot be recorded.
        CrossSample: it may let samples see each other, and is asked to take them in chunks.
    """

    def on(part: slice, share: float, largest: float) -> Computed:
        apart = chunk_size is not None
        return _gradient_penalty(of_rows(critic, part), x[part], penalty, apart, share, largest)

    def usual() -> Computed:
        return within_range(critic, x, chunk_size, on)

    def compute(pieces: int, x: Tensor) -> Computed:
        def on(part: slice, share: float) -> Computed:
            apart, largest = chunk_size is not None, half_precision.LARGEST_SCALE
            return _gradient_penalty(critic, x[part], penalty, apart, share, largest)

        return over(len(x), math.ceil(len(x) / pieces), on)

    if _is_even(x, chunk_size):
        done = replayed(
            critic, (penalty, chunk_size), [x], compute, usual, batch=lambda x: x,
            rows_apart=chunk_size is not None, averages=penalty.reduction == "mean",
            slices=lambda: _slices(x, chunk_size),
        )  # fmt: skip
    else:
        done = usual()
    norms, penalties = done.rows
    return attach(done, again), norms, penalties


def _gradient_penalty(
    critic: Critic, x: Tensor, penalty: Penalty, rows_apart: bool, share: float, largest: float
) -> Computed:
    recording = record(critic, x, rule_of, rows_apart)
    scores = check_scores(recording.scores, x)
    if recording.score < 0 or not recording.active[recording.score]:
        raise Independent
    gradient, deltas = input_gradient(recording, scores)
    if gradient is None:
        raise Independent
    norms, penalties, direction = measured(
        critic, gradient, lambda g, mask: penalty.of(g, mask=mask)
    )
    bars: Cotangents = [None] * len(recording.active)
    scale = None
    if recording.half:
        most = half_precision.scale_of_mean(x.shape[0], largest)
        direction, r = half_precision.fitted(direction, most * share, gradient, norms, deltas)
        scale = most * r
    elif share != 1.0:
        direction = direction * share
    parameter_gradients(recording, direction, deltas, bars)
    leaves = [leaf for _, leaf in recording.leaves]
    gradients = leaf_gradients(recording, bars, scale)
    rows, digest = (norms, penalties), None if recording.stateful else recording.digest
    return Computed(
        penalties.mean(), leaves, gradients, (), rows, recording.half, digest, recording.changed
    )


def critic_loss(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    drawn: Tensor | None,
    settings: LossSettings,
    chunk_size: int | None,
    again: Again,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(loss with its gradients, (real score, fake score, norms, penalties)), on merged batches.

    Raises:
        Independent: the score does not depend on the input.
        Unsupported: the critic cannot be recorded.
        CrossSample: it may let samples see each other, or has state; nothing has been changed.
    """

    def slices() -> int:
        if chunk_size is not None:
            return _slices(real, chunk_size)
        kept = merged.kept_of(critic, real, settings.at)
        return kept.slices() if kept and real.is_cpu and settings.averages else 1

    def on(part: slice, share: float, largest: float) -> Computed:
        of_part = None if drawn is None else drawn[part]
        rows = of_rows(critic, part)
        return merged.critic_loss(rows, real[part], fake[part], of_part, settings, share, largest)

    def usual() -> Computed:
        at_once = chunk_size or math.ceil(real.shape[0] / slices())
        return within_range(critic, real, at_once, on)

    def compute(pieces: int, weight: Tensor, *samples: Tensor) -> Computed:
        given = settings._replace(weight=weight)

        def on(part: slice, share: float) -> Computed:
            real, fake, *drawn = (one[part] for one in samples)
            of_part = drawn[0] if drawn else None
            return merged.critic_loss(critic, real, fake, of_part, given, share)

        return over(len(samples[0]), math.ceil(len(samples[0]) / pieces), on)

    def batch(_: Tensor, real: Tensor, fake: Tensor, *drawn: Tensor) -> Tensor:
        return Layout.of(settings.at, real, fake, drawn[0] if drawn else None).batch

    if settings.objective in NAMED.values() and _is_even(real, chunk_size):
        weight = settings.weight
        if not isinstance(weight, Tensor):
            kind = accumulation_dtype(real.dtype)
            weight = torch.full((), weight, dtype=kind, device=real.device)
        arguments = [weight, real, fake] if drawn is None else [weight, real, fake, drawn]
        about = settings._replace(weight=0.0), chunk_size
        done = replayed(
            critic, about, arguments, compute, usual, batch, rows_apart=True,
            averages=settings.averages, slices=slices,
        )  # fmt: skip
    else:
        done = usual()
    return attach(done, again), (*done.means, *done.rows)  # type: ignore[return-value]


def _slices(x: Tensor, chunk_size: int | None) -> int:
    """How many slices of so many samples a batch is cut into."""
    return 1 if chunk_size is None else math.ceil(len(x) / chunk_size)


def _is_even(x: Tensor, chunk_size: int | None) -> bool:
    """Whether all of these have as many samples."""
    return chunk_size is None or len(x) % min(chunk_size, len(x)) == 0


def better_apart(critic: Critic, real: Tensor, at: str) -> str | None:
    """Why three calls are faster than one batch, where both are right; None where they are not."""
    kept = merged.kept_of(critic, real, at)
    if at in BETWEEN and real.is_cpu and kept and kept.bends and kept.slices() > 1:
        return "the critic is curved, so that one batch saves no pass, and outgrows the cache"
    return None


def refuse(_: Any) -> Tensor:
    """``again`` under ``backend="explicit"``."""
    raise RuntimeError(
        'backend="explicit" gives first derivatives only; to differentiate this loss twice, take '
        'backend="auto" or "autograd"'
    )
