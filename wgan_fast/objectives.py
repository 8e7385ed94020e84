"""What the scores are trained towards: L(real scores, fake scores), which the critic minimises."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]


def wasserstein(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E f(fake) − E f(real) (Arjovsky et al., 2017, arXiv 1701.07875)."""
    return fake_scores.mean() - real_scores.mean()


def hinge(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E max(0, 1 − f(real)) + E max(0, 1 + f(fake)) (Lim and Ye, 2017, arXiv 1705.02894)."""
    return F.relu(1 - real_scores).mean() + F.relu(1 + fake_scores).mean()


def nonsaturating(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E softplus(−f(real)) + E softplus(f(fake)): cross-entropy (Goodfellow, arXiv 1406.2661)."""
    return F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()


def relativistic(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E softplus(f(fakeᵢ) − f(realᵢ)), in pairs (Jolicoeur-Martineau, 2018, arXiv 1807.00734)."""
    return F.softplus(fake_scores - real_scores).mean()


NAMED: dict[str, Objective] = {
    "wasserstein": wasserstein,
    "hinge": hinge,
    "nonsaturating": nonsaturating,
    "relativistic": relativistic,
}


def score_loss(
    objective: Objective, drift: float, real_scores: Tensor, fake_scores: Tensor
) -> Tensor:
    """The objective, and ProGAN's drift E f(real)², as a scalar.

    Raises:
        TypeError, ValueError: a user's objective returns something else.
    """
    loss = objective(real_scores, fake_scores)
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        kind = loss.dtype if isinstance(loss, Tensor) else type(loss).__name__
        raise TypeError(f"objective: expected it to return a floating point tensor, got {kind}")
    if loss.dim():
        raise ValueError(
            f"objective: expected it to return a scalar, got shape {tuple(loss.shape)}; "
            "take the mean over the samples"
        )
    if drift:
        loss = loss + drift * real_scores.square().mean()
    return loss


class HoldsTensors(Exception):  # noqa: N818 - control flow: autograd then takes the loss
    """An objective's loss depends on other tensors that require gradients than the scores."""


def score_cotangents(
    objective: Objective, drift: float, real_scores: Tensor, fake_scores: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(L, ∂L/∂ real scores, ∂L/∂ fake scores), by autograd on the scores alone.

    Raises:
        HoldsTensors: these are not all that L has gradients for, as with a learnable temperature.
    """
    with torch.enable_grad():
        leaves = real_scores.detach().requires_grad_(), fake_scores.detach().requires_grad_()
        loss = score_loss(objective, drift, *leaves)
        if not loss.requires_grad:
            raise ValueError("objective: expected a function of the scores, got one without them")
        if objective not in NAMED.values() and not _leads_to_these_alone(loss, leaves):
            raise HoldsTensors
        real, fake = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return loss.detach(), real, fake


def _leads_to_these_alone(loss: Tensor, leaves: tuple[Tensor, ...]) -> bool:
    """Whether autograd's graph of a loss ends at some leaves and at no others."""
    nodes = [loss.grad_fn]
    seen = set(nodes)
    for node in nodes:  # which grows
        if node is None:
            continue
        end = getattr(node, "variable", None)
        if end is not None and not any(end is leaf for leaf in leaves):
            return False
        behind = [one for one, _ in node.next_functions if one is not None and one not in seen]
        seen.update(behind)
        nodes += behind
    return True
