"""What can be seen of a critic: by autograd on one call of it, and by the passes on a recording."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wgan_fast.arguments import check_scores
from wgan_fast.double_backward.errors import NoDoubleBackward, Unsupported
from wgan_fast.double_backward.passes import input_gradient, push_forward, wanted_values
from wgan_fast.double_backward.record import record
from wgan_fast.double_backward.recording import Node
from wgan_fast.double_backward.rules import rule_of
from wgan_fast.double_backward.rules.base import Tensors
from wgan_fast.explanation import RecordedOp

Critic = Callable[..., Tensor]

# Relative to the largest gradient; rows that are computed apart agree to the last digit or nearly.
_ROUNDING = 1e-3

_CONSTANT = "no op with a derivative other than zero leads from the input to the score"


class Scored(NamedTuple):
    """What autograd says of one call."""

    depends: bool
    """Whether a derivative finds a way from the scores to the samples."""
    flat: bool
    """Whether that derivative is zero at every sample."""
    crosses: bool
    """Whether a sample's score changes with another sample."""
    functions: str
    """The user's own functions between samples and scores, to end a sentence with."""


def scored(critic: Critic, x: Tensor) -> Scored:
    """Call the critic, and differentiate its scores."""
    leaf = x.clone().requires_grad_()
    scores = check_scores(critic(leaf.clone()), x)  # which the critic may write into
    if not scores.requires_grad:
        return Scored(False, False, False, "")

    def gradient(cotangent: Tensor) -> Tensor | None:
        cotangent = cotangent.to(scores.dtype).expand_as(scores)
        (found,) = torch.autograd.grad(
            scores, leaf, cotangent, retain_graph=True, allow_unused=True
        )
        return None if found is None else found.to(torch.promote_types(x.dtype, torch.float32))

    own = {
        type(node)._forward_cls  # type: ignore[attr-defined]
        for node in graph_of(scores)
        if isinstance(node, torch.autograd.function.BackwardCFunction)
    }
    names = sorted(one.__name__ for one in own if not one.__module__.startswith("torch."))
    functions = f" (autograd.Function: {', '.join(names)})" if names else ""
    plain = gradient(scores.new_ones(()))
    if plain is None:
        return Scored(False, False, False, functions)
    # Where samples are apart, another factor for each sample's score is one for its gradient. The
    # factors are powers of two, which round nothing, in no order that the critic could share.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    factors = (2.0 ** -(order % 8)).to(x.device)
    weighted = gradient(factors.view(-1, *(1,) * (scores.dim() - 1)))
    assert weighted is not None
    apart = plain * factors.view(-1, *(1,) * (x.dim() - 1))
    scale = torch.maximum(apart.abs().max(), weighted.abs().max())
    crosses = bool((weighted - apart).abs().max() > _ROUNDING * scale)
    return Scored(True, not plain.any(), crosses, functions)


def parameters_of_graph(loss: Tensor) -> list[Tensor]:
    """The leaves that a loss depends on."""
    return [node.variable for node in graph_of(loss) if hasattr(node, "variable")]


def graph_of(result: Tensor) -> Iterator[Any]:
    """The nodes of autograd's graph."""
    waiting = [result.grad_fn]
    met = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is not None:
            yield node
            new = {following for following, _ in node.next_functions} - met
            met |= new
            waiting += new


class Recorded(NamedTuple):
    """What the passes do on a recording of one call."""

    ops: tuple[RecordedOp, ...]
    curved: bool | None
    constant: str | None
    """Why the engine leaves the critic to autograd though it was recorded."""


class _Watched:
    """A rule that notes which arguments of its node get second derivatives."""

    def __init__(self, rule: Any) -> None:
        self._rule = rule
        self.bent: list[int] = []
        """The values among them that depend on the input."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)

    def second(self, node: Node, delta: Any, tangents: Tensors, asked: list[bool]) -> Any:
        bars = self._rule.second(node, delta, tangents, asked)
        for value, active, bar in zip(node.inputs, node.active, bars or (), strict=bool(bars)):
            if active and bar is not None:
                self.bent.append(value)  # type: ignore[arg-type]
        return bars


def recorded(critic: Critic, x: Tensor) -> Recorded:
    """Record the critic and run the penalty's passes."""
    try:
        recording = record(critic, x, rule_of)
    except Unsupported:
        return Recorded((), None, None)
    watched = []
    for node in recording.nodes:
        node.rule = _Watched(node.rule)
        watched.append(node.rule)

    curved: bool | None = False
    constant = True
    if recording.score >= 0 and recording.active[recording.score]:
        try:
            with torch.no_grad():
                gradient, deltas = input_gradient(recording, recording.scores)
                constant = gradient is None
                if gradient is not None:
                    everything: list[Any] = [None] * len(recording.active)
                    all_asked = [True] * len(recording.active)
                    push_forward(recording, gradient, deltas, everything, all_asked)
            leads = wanted_values(recording, input_too=False)
            curved = any(leads[value] for rule in watched for value in rule.bent)
        except NoDoubleBackward:
            constant, curved = False, None

    kinds = [
        *((str(node.op), node.rule.name, bool(node.rule.bent), False) for node in recording.nodes),
        *((str(node.op), node.rule.name, False, True) for node in recording.parameter_nodes),
    ]
    ops = tuple(
        RecordedOp(op, rule, count, bent, of_parameters)
        for (op, rule, bent, of_parameters), count in Counter(kinds).items()
    )
    return Recorded(ops, curved, _CONSTANT if constant else None)
