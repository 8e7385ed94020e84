"""A critic loss from three calls: on fakes, on real samples, and at the penalty's points.

Of a curved critic one batch saves no pass, and is three times as large. The loss's own gradients
are autograd's here, the penalty's the engine's, and the sum is computed at once, so that calls that
come again can take it from one graph.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from wgan_fast.arguments import check_scores
from wgan_fast.double_backward import merged, penalised
from wgan_fast.double_backward.chunks import Computed
from wgan_fast.objectives import score_loss
from wgan_fast.ops import accumulation_dtype
from wgan_fast.penalties import BETWEEN, LossSettings
from wgan_fast.penalty_points import points_of

Critic = Callable[[Tensor], Tensor]


def faster(critic: Critic, real: Tensor, at: str) -> str | None:
    """Why three calls are faster than one batch, where both are right; None where they are not."""
    kept = merged.kept_of(critic, real, at)
    if at not in BETWEEN or not real.is_cpu or kept is None or kept.half:
        return None
    if kept.bends and kept.slices() > 1:
        return "the critic is curved, so that one batch saves no pass, and outgrows the cache"
    return None


def critic_loss(
    critic: Critic, real: Tensor, fake: Tensor, drawn: Tensor, settings: LossSettings
) -> Computed:
    """The loss, as :func:`wgan_fast.double_backward.merged.critic_loss` returns it.

    Raises:
        Independent: the score does not depend on the input.
        Unsupported: the critic cannot be recorded.
    """
    with torch.enable_grad():
        fake_scores, real_scores = _scores(critic, fake), _scores(critic, real)
        loss = score_loss(settings.objective, settings.drift, real_scores, fake_scores)
    (points,) = points_of(settings.penalty, real, fake, drawn)
    with torch.no_grad():
        penalty = penalised.gradient_penalty(critic, points, settings.penalty)
        of_penalty = {
            id(leaf): None if gradient is None else settings.weight * gradient
            for leaf, gradient in zip(penalty.leaves, penalty.gradients, strict=True)
        }
    # Python may go another way in each call, past other parameters.
    leaves = {id(leaf): leaf for leaf in (*penalty.leaves, *_leaves_of(loss))}
    of_loss = _gradients(loss, list(leaves.values()))
    gradients = [_sum(one, of_penalty.get(key)) for key, one in zip(leaves, of_loss, strict=True)]
    means = real_scores.detach().mean(), fake_scores.detach().mean()
    return penalty._replace(
        value=loss.detach() + settings.weight * penalty.value,
        leaves=list(leaves.values()),
        gradients=gradients,
        means=means,
    )


def _scores(critic: Critic, samples: Tensor) -> Tensor:
    scores = check_scores(critic(samples), samples)
    return scores.to(accumulation_dtype(scores.dtype))


def _leaves_of(loss: Tensor) -> list[Tensor]:
    """What a loss depends on by autograd's graph."""
    found, nodes = [], [loss.grad_fn]
    seen = set(nodes)
    for node in nodes:  # which grows
        if node is None:
            continue
        if (leaf := getattr(node, "variable", None)) is not None:
            found.append(leaf)
        new = [behind for behind, _ in node.next_functions if behind not in seen]
        seen.update(new)
        nodes += new
    return found


def _gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
    if not loss.requires_grad:
        return [None] * len(leaves)
    return list(torch.autograd.grad(loss, leaves, allow_unused=True))


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
