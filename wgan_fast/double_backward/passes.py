"""The passes over a recording: cotangents back, tangents forth, and the parameters' gradients.

With S = Σᵢ ⟨vᵢ, ∇f(xᵢ)⟩ for a constant direction v, S is the directional derivative of the summed
scores. Carrying pairs (value, tangent) through the critic, the cotangent of each tangent is the
cotangent Δ that the plain input gradient leaves there; the cotangent of each value comes from
curvature alone. That gives θ's gradient of S with first-order passes only:

1. ``pull_back`` with ones at the scores: Δ at every node, the input's gradient at the end.
2. ``push_forward`` from v: tangents; at every node, ``second`` gives the parameters' share and the
   curvature's cotangents of values.
3. ``pull_back`` of those cotangents, where there are any.
"""

from typing import Any

import torch
from torch import Tensor

from wgan_fast import ops
from wgan_fast.double_backward.recording import Node, Recording
from wgan_fast.double_backward.rules.base import Tensors, plus

Cotangents = list[Tensor | None]


def add_to(cotangents: Cotangents, value: int, cotangent: Tensor) -> None:
    """Accumulate; out of place, since a cotangent may be shared by several values."""
    before = cotangents[value]
    cotangents[value] = cotangent if before is None else before + cotangent


def delta_of(node: Node, cotangents: Cotangents) -> Any:
    """The cotangent of a node's result, a list for several; None where there is none at all."""
    outputs = node.outputs
    if len(outputs) == 1:
        return cotangents[outputs[0]]  # type: ignore[index]
    found = [None if value is None else cotangents[value] for value in outputs]
    return None if all(cotangent is None for cotangent in found) else found


def forget_third_pass(recording: Recording, nodes: list[Node]) -> None:
    """Drop what a pass for curvature would need, where no node of the recording bends."""
    if not any(node.bends for node in recording.nodes):
        for node in nodes:
            node.rule.forget(node)


class Owners:
    """Which cotangents are memory that nobody else holds, and may be written over."""

    def __init__(self) -> None:
        self._owned: set[int] = set()

    def note(self, value: int, fresh: bool) -> None:
        """A value got a cotangent: memory of its own, or maybe an alias."""
        (self._owned.add if fresh else self._owned.discard)(value)

    def pulled(self, node: Node, delta: Any, asked: list[bool]) -> Tensors:
        """The node's ``vjp``, into the memory of its own cotangent where that is possible."""
        only = len(asked) == 1 and len(node.outputs) == 1 and node.outputs[0] in self._owned
        if only and node.rule.overwrite(node, delta):
            return [delta]
        return node.rule.vjp(node, delta, asked)


def pull_back(
    nodes: list[Node],
    cotangents: Cotangents,
    wanted: list[bool],
    keep: list[Any] | None = None,
) -> None:
    """Reverse pass: fill ``cotangents`` of all values that ``wanted`` marks.

    A node's own cotangents are dropped once they are used; ``keep``, if given, gets those that
    ``second`` will need, aligned with ``nodes``, and True for the others that were reached.
    """
    owners = Owners()
    for position in range(len(nodes) - 1, -1, -1):
        node = nodes[position]
        delta = delta_of(node, cotangents)
        if delta is None:
            continue
        if keep is not None:
            keep[position] = delta if node.keeps_delta else True
        for value in node.outputs:
            if value is not None:
                cotangents[value] = None
        asked = [value is not None and wanted[value] for value in node.inputs]
        if True not in asked:
            continue
        pulled = owners.pulled(node, delta, asked)
        for value, ask, cotangent in zip(node.inputs, asked, pulled, strict=True):
            if ask and cotangent is not None:
                owners.note(value, node.rule.fresh or cotangents[value] is not None)  # type: ignore
                add_to(cotangents, value, cotangent)  # type: ignore[arg-type]


class Shared:
    """The loss and the penalty stand on the same samples: their parameter gradients come as one.

    Δ is of the loss itself, or, with ``multipliers``, of the bare scores: then each sample's Δ
    times its multiplier, or the one that all have, is the loss's.
    """

    def __init__(self, multipliers: Tensor | None) -> None:
        self.multipliers = multipliers

    def times(self, tensor: Any) -> Any:
        """The rows of a tensor, or of several, times their samples' multipliers."""
        factors = self.multipliers
        if factors is None or tensor is None:
            return tensor
        if not isinstance(tensor, Tensor):
            return [self.times(part) for part in tensor]
        if factors.dim() and factors.shape != tensor.shape:
            factors = factors.reshape(-1).repeat_interleave(tensor.shape[0] // factors.shape[0])
            factors = factors.view(-1, *(1,) * (tensor.dim() - 1))
        return tensor * factors.to(tensor.dtype)


def push_forward(
    recording: Recording,
    direction: Tensor,
    deltas: list[Any],
    bars: Cotangents,
    wanted: list[bool],
    shared: Shared | None = None,
) -> bool:
    """Tangents from ``direction``; ``bars`` gets what ``second`` and ``shared`` give.

    Returns whether a value that depends on the input got a cotangent: a reverse pass is then due.
    """
    last_use = last_uses(recording)
    bent = any(node.bends for node in recording.nodes)
    owned: set[int | None] = set()  # values whose tangents are memory that nobody else holds
    tangents: Cotangents = [None] * len(recording.active)
    tangents[recording.input] = direction
    curved = False
    for position, node in enumerate(recording.nodes):
        delta = deltas[position]
        if delta is None:  # nothing of it reaches the scores
            continue
        given = [None if value is None else tangents[value] for value in node.inputs]
        reached = any(tangent is not None for tangent in given)
        asked = [value is not None and wanted[value] for value in node.inputs]
        if shared is not None and delta is not True:
            second = _with_the_loss(recording, node, delta, given, asked, shared, last=not bent)
        elif delta is True or not reached:
            second = None
        else:
            second = node.rule.second(node, delta, given, asked)
        deltas[position] = delta = None  # before the tangent takes as much memory
        if second is not None:
            for value, ask, bar in zip(node.inputs, asked, second, strict=True):
                if ask and bar is not None:
                    add_to(bars, value, bar)  # type: ignore[arg-type]
                    curved = curved or recording.active[value]  # type: ignore[index]
        leads = any(value is not None and last_use[value] > position for value in node.outputs)
        if leads and reached:
            only = node.inputs[0] if len(given) == 1 else None
            free = only in owned and last_use[only] <= position  # type: ignore[index]
            if free and node.rule.push_over(node, given[0]):  # type: ignore[arg-type]
                pushed = given
                owned.add(node.outputs[0])
            else:
                pushed = node.rule.jvp(node, given)
                pushed = [pushed] if isinstance(pushed, Tensor) else pushed
                if node.rule.fresh and not any(pushed[0] is tangent for tangent in given):
                    owned.add(node.outputs[0])
                else:  # it may be a view of a tangent, which then has two holders
                    owned.difference_update(node.inputs)
            for value, tangent in zip(node.outputs, pushed, strict=False):
                if value is not None:
                    tangents[value] = tangent
        if not bent:  # there is no third pass
            node.rows = [None] * len(node.rows)
        for value in node.inputs:
            if value is not None and last_use[value] <= position:
                tangents[value] = None
    return curved


def _with_the_loss(
    recording: Recording,
    node: Node,
    delta: Any,
    given: Tensors,
    asked: list[bool],
    shared: Shared,
    last: bool,
) -> Tensors | None:
    """``second``, and the loss's gradients of the node's parameters.

    If they are the ``last`` to need them, what the node keeps may go.
    """
    parameters = [
        ask and not recording.active[value]  # type: ignore[index]
        for ask, value in zip(asked, node.inputs, strict=True)
    ]
    reached = any(tangent is not None for tangent in given)
    if not any(parameters):
        return node.rule.second(node, delta, given, asked) if reached else None
    if reached:
        together = node.rule.second_and_loss(node, delta, given, asked, shared.times, last)
        if together is not None:
            return together
    pulled = node.rule.vjp(node, shared.times(delta), parameters)
    first = [bar if ask else None for bar, ask in zip(pulled, parameters, strict=True)]
    second = node.rule.second(node, delta, given, asked) if reached else None
    if second is None:
        return first
    return [plus(one, other) for one, other in zip(first, second, strict=True)]


def last_uses(recording: Recording) -> list[int]:
    """Per value, the last node to whose second-order term or tangent it matters; −1 for none.

    The tangent of the scores, and of whatever only leads to them linearly, is not needed.
    """
    last = [-1] * len(recording.active)
    for position in range(len(recording.nodes) - 1, -1, -1):
        node = recording.nodes[position]
        matters = node.rule.curved or node.parametric or node.several
        if matters or any(value is not None and last[value] >= 0 for value in node.outputs):
            for value in node.inputs:
                if value is not None and last[value] < 0:
                    last[value] = position
    return last


def wanted_values(recording: Recording, input_too: bool) -> list[bool]:
    """The values whose cotangents lead somewhere: to a parameter, or to the input if asked."""
    wanted = [not active for active in recording.active]
    wanted[recording.input] = input_too
    for node in recording.nodes:
        leads = any(value is not None and wanted[value] for value in node.inputs)
        for value in node.outputs:
            if value is not None:
                wanted[value] = leads
    return wanted


def leaf_gradients(
    recording: Recording, bars: Cotangents, scale: Tensor | None
) -> list[Tensor | None]:
    """Finish below the parameters that are computed from others; each leaf's gradient.

    With a ``scale``, the cotangents so far are that many times too large.
    """
    everything = [True] * len(recording.active)
    pull_back(recording.parameter_nodes, bars, everything)

    def finished(bar: Tensor | None, leaf: Tensor) -> Tensor | None:
        if bar is None or scale is None:
            return bar if bar is None else bar.to(leaf.dtype)
        return (bar.to(ops.accumulation_dtype(bar.dtype)) / scale).to(leaf.dtype)

    return [finished(bars[value], leaf) for value, leaf in recording.leaves]


def input_gradient(recording: Recording, scores: Tensor) -> tuple[Tensor | None, list[Any]]:
    """∇ₓ Σ f(xᵢ) and every node's Δ."""
    cotangents: Cotangents = [None] * len(recording.active)
    cotangents[recording.score] = torch.ones_like(scores)
    deltas: list[Any] = [None] * len(recording.nodes)
    forget_third_pass(recording, recording.nodes)
    pull_back(recording.nodes, cotangents, list(recording.active), keep=deltas)
    return cotangents[recording.input], deltas


def parameter_gradients(
    recording: Recording,
    direction: Tensor,
    deltas: list[Any],
    bars: Cotangents,
    shared: Shared | None = None,
) -> None:
    """Add ∂/∂θ Σ ⟨vᵢ, ∇f(xᵢ)⟩ to the parameters' ``bars``."""
    wanted = wanted_values(recording, input_too=False)
    if push_forward(recording, direction, deltas, bars, wanted, shared):
        pull_back(recording.nodes, bars, wanted)
