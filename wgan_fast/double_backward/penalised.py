"""The penalty at some points, with its parameter gradients, from one recording."""

from collections.abc import Callable

from torch import Tensor

from wgan_fast.arguments import check_scores
from wgan_fast.critic_calls import measured
from wgan_fast.double_backward import half_precision
from wgan_fast.double_backward.chunks import Computed
from wgan_fast.double_backward.errors import Independent
from wgan_fast.double_backward.passes import (
    Cotangents,
    input_gradient,
    leaf_gradients,
    parameter_gradients,
)
from wgan_fast.double_backward.record import record
from wgan_fast.double_backward.rules import rule_of
from wgan_fast.penalties import Penalty

Critic = Callable[[Tensor], Tensor]


def gradient_penalty(
    critic: Critic,
    x: Tensor,
    penalty: Penalty,
    rows_apart: bool = False,
    share: float = 1.0,
    largest: float = half_precision.LARGEST_SCALE,
) -> Computed:
    """The mean penalty at ``x``; its rows are (norms, penalties).

    Its gradients are multiplied by ``share``; in float16, cotangents are at most ``largest`` times
    what they are.

    Raises:
        Independent: the score does not depend on the input.
        Unsupported: the critic cannot be recorded.
        CrossSample: samples may see each other, and have to be ``rows_apart``.
    """
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
    return Computed(penalties.mean(), leaves, gradients, (), rows, recording.half, digest)
