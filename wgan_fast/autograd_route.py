"""``backend="autograd"``: the penalty by double backward, with the fused operators around it.

The gradient in the input is taken with ``create_graph=True``, and the loss's ``backward`` walks
through it: right for every critic that autograd can differentiate twice, at autograd's price.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from wgan_fast import ops
from wgan_fast.arguments import check_scores, independent_score_error
from wgan_fast.critic_calls import measured

Critic = Callable[[Tensor], Tensor]


def scores_and_gradient(critic: Critic, x: Tensor, create_graph: bool) -> tuple[Tensor, Tensor]:
    """Scores, and ∇ₓ Σ f(xᵢ) with each sample's own in its row; ``x`` must require gradients."""
    with torch.enable_grad():
        scores = check_scores(critic(x), x)
        gradient = None
        if scores.requires_grad:
            (gradient,) = torch.autograd.grad(
                scores,
                x,
                grad_outputs=torch.ones_like(scores),
                create_graph=create_graph,
                allow_unused=True,
            )
    if gradient is None:
        raise independent_score_error()
    return scores, gradient


def norms_and_penalties(
    critic: Critic, x: Tensor, target: float, one_sided: bool
) -> tuple[Tensor, Tensor]:
    """‖∇f(xᵢ)‖ and φ of it, each ``(B,)``, differentiable where gradients are enabled."""
    return scores_norms_and_penalties(critic, x, target, one_sided)[1:]


def scores_norms_and_penalties(
    critic: Critic, x: Tensor, target: float, one_sided: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores too, from the same call, in the type sums are taken in."""
    create_graph = torch.is_grad_enabled()
    # Tensors made in inference mode cannot be differentiated; step outside of it and copy.
    with torch.inference_mode(False), torch.set_grad_enabled(create_graph):
        if x.is_inference():
            x = x.clone()
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        scores, gradient = scores_and_gradient(critic, x, create_graph)
        norm, penalty, _ = measured(
            critic,
            gradient,
            lambda g, mask: ops.gradient_norm_penalty(g, target, one_sided, mask=mask),
        )
    if not create_graph:
        scores = scores.detach()
    return scores.to(ops.accumulation_dtype(scores.dtype)), norm, penalty


def scores(critic: Critic, samples: Tensor) -> Tensor:
    """The critic's scores of samples that take no gradient, in the type sums are taken in."""
    given = check_scores(critic(samples), samples)
    return given.to(ops.accumulation_dtype(given.dtype))
