"""E f(x) with its gradients: a loss of its own, from a call that no penalty shares."""

from collections.abc import Callable

import torch
from torch import Tensor

from wgan_fast.arguments import check_scores
from wgan_fast.critic_calls import of_rows
from wgan_fast.double_backward import half_precision
from wgan_fast.double_backward.chunks import Computed
from wgan_fast.double_backward.explicit import Again, attach, within_range
from wgan_fast.double_backward.passes import Cotangents, leaf_gradients, pull_back, wanted_values
from wgan_fast.double_backward.record import record
from wgan_fast.double_backward.replays import replayed
from wgan_fast.double_backward.rules import rule_of
from wgan_fast.ops import accumulation_dtype

Critic = Callable[[Tensor], Tensor]


def mean_score(critic: Critic, x: Tensor, again: Again) -> Tensor:
    """The mean of the critic's scores, in the type sums are taken in.

    Raises:
        Unsupported: the critic cannot be recorded.
    """

    def on(part: slice, _: float, largest: float) -> Computed:
        return _mean_score(of_rows(critic, part), x[part], largest)

    def compute(_: int, x: Tensor) -> Computed:
        return _mean_score(critic, x, half_precision.LARGEST_SCALE)

    done = replayed(
        critic, "mean score", [x], compute, lambda: within_range(critic, x, None, on),
        batch=lambda x: x, rows_apart=False, averages=True, slices=lambda: 1,
    )  # fmt: skip
    return attach(done, again)


def _mean_score(critic: Critic, x: Tensor, largest: float) -> Computed:
    recording = record(critic, x, rule_of)
    scores = check_scores(recording.scores, x)
    wide = scores.to(accumulation_dtype(scores.dtype))
    scale = None
    cotangent = torch.full_like(wide, 1 / wide.numel())
    if recording.half:
        scale = half_precision.scale_of_loss(wide, wide.numel(), largest)
        cotangent = cotangent * scale
    cotangents: Cotangents = [None] * len(recording.active)
    if recording.score >= 0:  # else a constant
        cotangents[recording.score] = cotangent.to(scores.dtype)
    pull_back(recording.nodes, cotangents, wanted_values(recording, input_too=False))
    leaves = [leaf for _, leaf in recording.leaves]
    gradients = leaf_gradients(recording, cotangents, scale)
    digest = None if recording.stateful else recording.digest
    return Computed(
        wide.mean(), leaves, gradients, (), (), recording.half, digest, recording.changed
    )
