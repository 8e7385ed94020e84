"""The whole critic loss on one batch: the loss's samples and the penalty's points in one recording.

Every sample's score enters the loss through its cotangent cᵢ = ∂L/∂sᵢ, known once the scores are.
One reverse pass with c at the loss's rows and ones at the penalty's gives the loss's parameter
gradients as it goes and, on the penalty's rows, its input gradients. The tangent pass then runs on
those rows alone. Where the penalty is taken at the loss's own samples (R1, R2), both share every
pass: the loss's part of a weight's gradient waits for the tangents, and one call gives the two.

This is right only where samples do not see each other, which the recording proves or refuses.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wgan_fast import ops
from wgan_fast.arguments import check_scores
from wgan_fast.critic_calls import CriticCall, measured, settled
from wgan_fast.double_backward import choice, half_precision
from wgan_fast.double_backward.chunks import Computed
from wgan_fast.double_backward.errors import CrossSample, Independent
from wgan_fast.double_backward.independence import State, check_part
from wgan_fast.double_backward.layout import Copies, Layout
from wgan_fast.double_backward.passes import (
    Cotangents,
    Owners,
    Shared,
    add_to,
    delta_of,
    leaf_gradients,
    parameter_gradients,
    wanted_values,
)
from wgan_fast.double_backward.record import record
from wgan_fast.double_backward.recording import Node, Recording
from wgan_fast.double_backward.rules import rule_of
from wgan_fast.double_backward.rules.base import Tensors
from wgan_fast.objectives import HoldsTensors, score_cotangents
from wgan_fast.penalties import BETWEEN, LossSettings

Critic = Callable[[Tensor], Tensor]

# A quarter of a large CPU's last cache, in bytes: what a pass reads, writes and keeps then fits.
_FITS_THE_CACHE = 8 << 20
# So many ways of Python's through one critic are remembered; then all are learnt anew.
_WAYS = 64
# After so many new ways in a row, a comparison in every call costs more than three calls.
_MISSES = 8


def critic_loss(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    drawn: Tensor | None,
    settings: LossSettings,
    share: float = 1.0,
    largest: float = half_precision.LARGEST_SCALE,
) -> Computed:
    """The loss; its means are (real score, fake score), its rows (norms, penalties).

    Its gradients are multiplied by ``share``, a chunk's part of the batch; in float16, cotangents
    are at most ``largest`` times what they are. Unless it is known that
    the critic takes a batch like this as it takes the parts, these are called to compare.

    Raises:
        CrossSample: the critic's samples may see each other.
        Unsupported: the critic cannot be recorded.
    """
    layout = Layout.of(settings.at, real, fake, drawn)
    recording, scores = _scored(critic, layout, settings, share == 1.0)
    settings = settings._replace(objective=settled(settings.objective))
    if layout.shared and not settings.uniform and scores.numel() != scores.shape[0]:
        # A patch critic's scores enter the loss each with its own weight, the penalty with one.
        layout = Layout.apart(settings.at, real, fake)
        recording, scores = _scored(critic, layout, settings, share == 1.0)
    wide = scores.to(ops.accumulation_dtype(scores.dtype))
    real_scores, fake_scores = layout.real.of(wide), layout.fake.of(wide)
    real_score, fake_score = real_scores.mean(), fake_scores.mean()

    scale: float | Tensor = 1.0  # of all cotangents, to be divided out at the end
    if recording.half:
        scale = half_precision.scale_of_loss(wide, real_scores.numel(), largest)
    cotangent = torch.ones_like(wide)
    unit: float | Tensor = 1.0  # the size of the penalty rows' cotangents
    multipliers = None  # c beyond it
    if settings.uniform:
        loss = fake_score - real_score
        each = scale * share / real_scores.numel()
        layout.real.of(cotangent).fill_(-each)
        layout.fake.of(cotangent).fill_(each)
        unit = each if layout.shared else 1.0
    else:
        try:
            loss, to_real, to_fake = score_cotangents(
                settings.objective, settings.drift, real_scores, fake_scores
            )
        except HoldsTensors:
            reason = "the objective holds tensors that require gradients, which autograd alone sees"
            raise CrossSample(reason) from None
        layout.real.of(cotangent).copy_(to_real * (scale * share))
        layout.fake.of(cotangent).copy_(to_fake * (scale * share))
        if layout.shared:
            multipliers = layout.penalty.of(cotangent).to(scores.dtype, copy=True)
            layout.penalty.of(cotangent).fill_(1.0)

    gradient, deltas, bars = _pull_back(recording, cotangent.to(scores.dtype), layout, share == 1.0)
    if gradient is None:
        raise Independent
    gradient = gradient.to(real.dtype)
    both = settings.penalty.parts  # the mean over real and fake is half the sum of their means
    norms, penalties, direction = measured(
        critic,
        gradient / unit if layout.shared and settings.uniform else gradient,
        lambda g, mask: settings.penalty.of(g, both, mask),
    )
    ratio = both * share * scale / unit
    whole = isinstance(ratio, float) and ratio == 1.0
    factor = settings.weight if whole else settings.weight * ratio
    if recording.half:
        direction, r = half_precision.fitted(direction, factor, gradient, norms, deltas)
        # The loss's part waits in the same sums.
        bars = [half_precision.times(bar, r) for bar in bars]
        multipliers = r if multipliers is None else multipliers * r
        scale = scale * r
    elif isinstance(factor, Tensor) or factor != 1.0:
        direction = direction * factor
    shared = Shared(multipliers) if layout.shared else None
    parameter_gradients(recording, direction, deltas, bars, shared)
    loss = loss + settings.weight * (both * penalties.mean())
    leaves = [leaf for _, leaf in recording.leaves]
    gradients = leaf_gradients(recording, bars, scale if isinstance(scale, Tensor) else None)
    means, rows = (real_score, fake_score), (norms, penalties)
    return Computed(loss, leaves, gradients, means, rows, recording.half, recording.digest)


class Kept(NamedTuple):
    """What is kept of a merged batch from pass to pass, as its first recording found it."""

    largest: int
    """Bytes of the largest tensor."""
    bends: bool
    """Whether the critic is curved, so that all of it is needed to the end."""
    digests: frozenset[int]
    """Of the recordings that were compared with calls on parts of their batches."""
    misses: int = 0
    """How many calls in a row had another digest."""

    def slices(self) -> int:
        """Into how many parts to cut the batch on a CPU.

        A batch beyond the cache is slower as a whole: it is read from memory in every pass, and
        that memory comes from the system anew in every step.
        """
        return max(1, math.ceil(self.largest / _FITS_THE_CACHE))


def kept_of(critic: Critic, real: Tensor, at: str) -> Kept | None:
    """What was found out of a batch of this shape; None if that is not known."""
    parts = 3 if at in BETWEEN else 2
    return choice.proven.get(  # type: ignore[no-any-return]
        critic, at, parts, real.shape, real.dtype
    )


def _scored(
    critic: Critic, layout: Layout, settings: LossSettings, whole: bool, anew: bool = False
) -> tuple[Recording, Tensor]:
    """The critic, recorded on the layout's batch, and its scores; ``whole`` if it is no slice."""
    first = layout.parts[0]
    about = settings.at, len(layout.parts), first.shape, first.dtype
    kept: Kept | None = choice.proven.get(critic, *about)
    digests = frozenset() if kept is None else kept.digests
    proven = kept is not None and not anew
    batch = layout.batch
    state = None if proven else State(critic)
    try:
        recording = record(critic, batch, rule_of, rows_apart=True, alpha=layout.alpha)
        if state is not None and state.replaced():
            raise CrossSample("the critic replaces its own state in every call")
    except Exception:
        if state is not None:
            state.put_back()
        raise
    if kept is not None and proven and not recording.random:
        if recording.digest not in digests:
            # A flag, a factor, a number of labels: what was proven is of other ops.
            if kept.misses >= _MISSES and whole:
                raise CrossSample("Python takes another way through the critic in every call")
            return _scored(critic, layout, settings, whole, anew=True)
        if kept.misses:
            choice.proven.set(critic, kept._replace(misses=0), *about)
    scores = recording.scores
    if not isinstance(scores, Tensor) or scores.dim() == 0 or scores.shape[0] != batch.shape[0]:
        raise CrossSample("the critic does not return one score per sample")
    check_scores(scores, batch)
    if recording.score < 0 or not recording.active[recording.score]:
        raise Independent
    if not (proven or recording.random):  # another mask would be another score
        # A batch of its own begins as the first part does; the others find themselves moved.
        for part, found in zip(layout.parts, scores.chunk(len(layout.parts)), strict=True):
            if part is not layout.parts[0]:
                check_part(critic, part, found)
        if isinstance(critic, CriticCall) and critic.conditions:
            # What Python reads of conditions, the recording proves nothing of.
            half = slice(0, max(1, len(first) // 2))
            check_part(critic.of_rows(half), first[half], scores[: len(first)][half])
    if not proven:
        tensors = [rows for node in recording.nodes for rows in node.rows if rows is not None]
        largest = max((rows.numel() * rows.element_size() for rows in tensors), default=0)
        bends = any(node.bends for node in recording.nodes)
        digests = digests if len(digests) < _WAYS else frozenset()
        misses = 0 if kept is None else kept.misses + 1
        kept = Kept(largest, bends, digests | {recording.digest}, misses)
        choice.proven.set(critic, kept, *about)
    return recording, scores


def _pull_back(
    recording: Recording, cotangent: Tensor, layout: Layout, whole_batch: bool
) -> tuple[Tensor | None, list[Any], Cotangents]:
    """The reverse pass; leaves in ``recording`` the nodes of the penalty's rows alone.

    Returns:
        The input's gradient and every node's Δ on the penalty's rows, and the parameters'
        cotangents that the loss's other rows bring.
    """
    penalty_rows, loss_rows = layout.penalty, layout.loss_only
    copies, owners = Copies(whole_batch), Owners()
    # A value that no parameter comes before needs a cotangent on the penalty's rows alone.
    leads = wanted_values(recording, input_too=False)
    cotangents: Cotangents = [None] * len(recording.active)
    whole = leads[recording.score]  # unless every parameter is frozen
    cotangents[recording.score] = cotangent if whole else penalty_rows.of(cotangent)
    deltas: list[Any] = [None] * len(recording.nodes)
    bent = any(node.bends for node in recording.nodes)

    def collect(node: Node, asked: list[bool], pulled: Tensors) -> None:
        for value, ask, bar in zip(node.inputs, asked, pulled, strict=True):
            if ask and bar is not None:
                owners.note(value, node.rule.fresh or cotangents[value] is not None)  # type: ignore
                add_to(cotangents, value, bar)  # type: ignore[arg-type]

    for position in range(len(recording.nodes) - 1, -1, -1):
        node = recording.nodes[position]
        delta = delta_of(node, cotangents)
        if delta is None:
            continue
        whole = any(value is not None and leads[value] for value in node.outputs)
        for value in node.outputs:
            if value is not None:
                cotangents[value] = None
        cut_delta = penalty_rows.of_delta(delta) if whole else delta

        to_all = [
            ask and leads[value]  # type: ignore[index]
            for ask, value in zip(node.active, node.inputs, strict=True)
        ]
        if True in to_all:
            # The cotangent may be written over once its rows for the penalty are taken.
            pull = node.rule.vjp if node.keeps_delta else owners.pulled
            collect(node, to_all, pull(node, delta, to_all))
        if loss_rows is not None and node.parametric:
            batch, node.rows = node.rows, loss_rows.of_each(node.rows)
            pulled = node.rule.vjp(node, loss_rows.of_delta(delta), node.parameters)
            collect(node, node.parameters, pulled)
            node.rows = batch
        # From here on, the penalty's rows alone are needed; the batch's memory goes.
        if not bent and not (layout.shared and node.parametric):
            node.rule.forget(node)
        node.rows = [
            None if row is None else copies.of(row, penalty_rows.of(row)) for row in node.rows
        ]
        if to_all != node.active:
            to_penalty = [ask and not done for ask, done in zip(node.active, to_all, strict=True)]
            collect(node, to_penalty, node.rule.vjp(node, cut_delta, to_penalty))
        deltas[position] = True
        if node.keeps_delta:
            apart = whole and isinstance(delta, Tensor)
            deltas[position] = copies.of(delta, cut_delta) if apart else cut_delta
    gradient = cotangents[recording.input]
    cotangents[recording.input] = None
    return gradient, deltas, cotangents
