"""The whole critic loss on one batch: real, fake and penalty points in one recording.

Every sample's score enters the loss through its cotangent cᵢ = ∂L/∂sᵢ, known once the scores are.
One reverse pass with c at the loss's rows and ones at the penalty's gives the loss's parameter
gradients as it goes and, on the last third of the rows, the input gradients of the penalty. The
tangent pass then runs on that third alone.

This is right only where samples do not see each other, which the recording proves or refuses.
"""

import copy
from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from wgan_fast import ops
from wgan_fast.arguments import check_scores, independent_score_error
from wgan_fast.double_backward.chunks import Computed
from wgan_fast.double_backward.errors import CrossSample
from wgan_fast.double_backward.passes import (
    Cotangents,
    Owners,
    add_to,
    bends,
    delta_of,
    keeps_delta,
    leaf_gradients,
    parameter_gradients,
    wanted_values,
)
from wgan_fast.double_backward.recording import Node, Recording, record
from wgan_fast.double_backward.rules import rule_of
from wgan_fast.penalties import LossSettings

Critic = Callable[[Tensor], Tensor]

# From this size on, rows are copied out of a batch rather than kept as a view that holds all of it.
_WORTH_A_COPY = 1 << 16


class Rows:
    """A range of a batch's samples, to cut tensors and nodes to."""

    def __init__(self, start: int, stop: int, total: int) -> None:
        self.start, self.stop, self.total = start, stop, total

    def of(self, tensor: Tensor) -> Tensor:
        """The rows of a tensor that has a whole number of rows per sample."""
        per_sample = tensor.shape[0] // self.total
        return tensor[self.start * per_sample : self.stop * per_sample]

    def of_delta(self, delta: Any) -> Any:
        """The rows of a node's cotangent, or of each of its several."""
        if isinstance(delta, Tensor):
            return self.of(delta)
        return [None if part is None else self.of(part) for part in delta]

    def of_node(self, node: Node) -> Node:
        """The node as if it had been recorded on these rows alone."""
        cut = copy.copy(node)
        cut.rows = [None if kept is None else self.of(kept) for kept in node.rows]
        return cut


class Copies:
    """Rows that outlive their batch, each copied once however often it is kept."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[ref[Tensor], Tensor]] = {}

    def of(self, whole: Tensor, part: Tensor) -> Tensor:
        """``part`` of ``whole`` in memory of its own, if it is large."""
        if part.numel() * part.element_size() < _WORTH_A_COPY:
            return part
        made_of, made = self._made.get(id(whole), (None, part))
        if (
            made_of is None or made_of() is not whole
        ):  # a number of a tensor that is gone comes again
            made = part.clone()
            self._made[id(whole)] = ref(whole), made
        return made


def critic_loss(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    interpolates: Tensor,
    settings: LossSettings,
) -> Computed:
    """The loss; its means are (real score, fake score), its rows (norms, penalties).

    Raises:
        CrossSample: the critic's samples may see each other.
        Unsupported: the critic cannot be recorded.
    """
    batch = torch.cat([real, fake, interpolates])
    samples = real.shape[0]
    recording = record(critic, batch, rule_of, rows_apart=True)
    scores = recording.scores
    if not isinstance(scores, Tensor) or scores.dim() == 0 or scores.shape[0] != batch.shape[0]:
        raise CrossSample("the critic does not return one score per sample")
    check_scores(scores, batch)
    if recording.score < 0 or not recording.active[recording.score]:
        raise independent_score_error()
    wide = scores.to(ops.accumulation_dtype(scores.dtype))
    size = scores.shape[0] // 3
    real_scores, fake_scores = wide[:size], wide[size : 2 * size]
    cotangent = torch.ones_like(wide)
    cotangent[:size] = -1 / real_scores.numel()
    cotangent[size : 2 * size] = 1 / fake_scores.numel()
    if settings.drift:
        cotangent[:size] += real_scores * (2 * settings.drift / real_scores.numel())

    gradient, deltas, bars = _pull_back(recording, cotangent.to(scores.dtype), samples)
    if gradient is None:
        raise independent_score_error()
    norms, penalties, direction = ops.gradient_norm_penalty(
        gradient.to(batch.dtype), settings.target, settings.one_sided
    )
    parameter_gradients(recording, direction * settings.weight, deltas, bars)
    real_score, fake_score = real_scores.mean(), fake_scores.mean()
    loss = fake_score - real_score + settings.weight * penalties.mean()
    if settings.drift:
        loss = loss + settings.drift * real_scores.square().mean()
    leaves = [leaf for _, leaf in recording.leaves]
    gradients = leaf_gradients(recording, bars)
    return Computed(loss, leaves, gradients, (real_score, fake_score), (norms, penalties))


def _pull_back(
    recording: Recording, cotangent: Tensor, samples: int
) -> tuple[Tensor | None, list[Any], Cotangents]:
    """The reverse pass; leaves in ``recording`` the nodes of the penalty's rows alone.

    Returns:
        The input's gradient and every node's Δ on the penalty's rows, and the parameters'
        cotangents that the loss's rows bring.
    """
    loss_rows = Rows(0, 2 * samples, 3 * samples)
    penalty_rows = Rows(2 * samples, 3 * samples, 3 * samples)
    copies, owners = Copies(), Owners()
    active = recording.active
    # A value that no parameter comes before needs a cotangent on the penalty's rows alone.
    leads = wanted_values(recording, input_too=False)
    cotangents: Cotangents = [None] * len(active)
    whole = leads[recording.score]  # unless every parameter is frozen
    cotangents[recording.score] = cotangent if whole else penalty_rows.of(cotangent)
    deltas: list[Any] = [None] * len(recording.nodes)
    bent = any(bends(node, active) for node in recording.nodes)
    for position in range(len(recording.nodes) - 1, -1, -1):
        node = recording.nodes[position]
        delta = delta_of(node, cotangents)
        if delta is None:
            continue
        whole = any(value is not None and leads[value] for value in node.outputs)
        for value in node.outputs:
            if value is not None:
                cotangents[value] = None
        kept = keeps_delta(node, active)
        copied = whole and isinstance(delta, Tensor)
        cut = penalty_rows.of_node(node)
        cut_delta = penalty_rows.of_delta(delta) if whole else delta
        asked = [value is not None and active[value] for value in node.inputs]
        asked_whole = [
            ask and leads[value]  # type: ignore[index]
            for ask, value in zip(asked, node.inputs, strict=True)
        ]
        asked_cut = [
            ask and not all_of_it for ask, all_of_it in zip(asked, asked_whole, strict=True)
        ]
        asked_loss = [value is not None and not active[value] for value in node.inputs]
        for ask, on, given in (
            (asked_whole, node, delta),
            (asked_cut, cut, cut_delta),
            (asked_loss, node if not any(asked_loss) else loss_rows.of_node(node), delta),
        ):
            if any(ask):
                given = loss_rows.of_delta(delta) if ask is asked_loss else given
                # The cotangent may be written over once its rows for the penalty are taken.
                may_overwrite = ask is asked_whole and not kept and not any(asked_loss)
                pulled = (
                    owners.pulled(on, given, ask) if may_overwrite else on.rule.vjp(on, given, ask)
                )
                for value, want, bar in zip(node.inputs, ask, pulled, strict=True):
                    if want and bar is not None:
                        owners.note(value, on.rule.fresh or cotangents[value] is not None)  # type: ignore
                        add_to(cotangents, value, bar)  # type: ignore[arg-type]
        if not bent:
            cut.rule.forget(cut, active)
        # From here on, the penalty's rows alone are needed; the batch's memory goes.
        cut.rows = [
            None if row is None or part is None else copies.of(row, part)
            for row, part in zip(node.rows, cut.rows, strict=True)
        ]
        recording.nodes[position] = cut
        deltas[position] = True
        if kept:
            deltas[position] = copies.of(delta, cut_delta) if copied else cut_delta
    gradient = cotangents[recording.input]
    cotangents[recording.input] = None
    return gradient, deltas, cotangents
