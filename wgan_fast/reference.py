"""The textbook, in plain autograd PyTorch: every test's oracle and every benchmark's baseline.

Nothing here is fast and nothing here is clever. Each function is one formula of

- WGAN: Arjovsky, Chintala, Bottou, *Wasserstein GAN*, 2017 (arXiv 1701.07875),
- WGAN-GP: Gulrajani et al., *Improved Training of Wasserstein GANs*, 2017 (arXiv 1704.00028),
- WGAN-LP: Petzka et al., *On the regularization of Wasserstein GANs*, 2018 (arXiv 1709.08894),

and of the other members of the penalty family, at :func:`family_penalty`, spelled as tutorials
spell it. The functions take what they are given: the checks on arguments live
in :mod:`wgan_fast.functional`.

Shapes: ``real`` and ``fake`` are ``(B, ...)``, ``alpha`` is ``(B,)``, scores have ``B`` as their
first size. Everything is differentiable as often as the critic is.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = [
    "clip_weights_",
    "critic_loss",
    "critic_loss_at_samples",
    "dual_norms",
    "family_loss",
    "family_penalty",
    "generator_loss",
    "gradient_norms",
    "gradient_penalty",
    "interpolate",
    "penalty",
    "score_loss",
    "wgan_critic_step",
    "wgan_generator_step",
    "wgan_gp_critic_step",
]

Critic = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor, Tensor], Tensor]


def interpolate(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """x̂ = α real + (1 − α) fake, one α per sample (the paper's ε; 1704.00028, algorithm 1)."""
    alpha = alpha.reshape(-1, *[1] * (real.dim() - 1))
    return alpha * real + (1 - alpha) * fake


def gradient_norms(critic: Critic, x: Tensor) -> Tensor:
    """‖∇ₓ f(xᵢ)‖₂ over all axes but the batch's: shape ``(B,)``, with its graph kept.

    ``x`` must require gradients.
    """
    scores = critic(x)
    (gradient,) = torch.autograd.grad(
        scores, x, grad_outputs=torch.ones_like(scores), create_graph=True, retain_graph=True
    )
    return gradient.flatten(1).norm(2, dim=1)


def penalty(norms: Tensor, target: float = 1.0, sided: str = "two") -> Tensor:
    """φ(n) per sample: (n − target)², or max(0, n − target)² where only too steep is punished."""
    excess = norms - target
    return (excess if sided == "two" else excess.clamp(min=0)) ** 2


def gradient_penalty(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    alpha: Tensor,
    target: float = 1.0,
    sided: str = "two",
) -> Tensor:
    """(1/B) Σ φ(‖∇ f(x̂ᵢ)‖) at x̂ = α real + (1 − α) fake; λ is the caller's."""
    interpolates = interpolate(real.detach(), fake.detach(), alpha).requires_grad_()
    return penalty(gradient_norms(critic, interpolates), target, sided).mean()


def critic_loss(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    alpha: Tensor,
    weight: float = 10.0,
    target: float = 1.0,
    sided: str = "two",
    drift: float = 0.0,
    objective: Objective | None = None,
) -> Tensor:
    """E f(fake) − E f(real) + λ E φ(‖∇f(x̂)‖) + drift E f(real)²; three calls of the critic.

    The drift term is ProGAN's (Karras et al., 2018, arXiv 1710.10196, appendix A.1). ``objective``
    takes the real and the fake scores to what stands in the place of the first two terms.
    """
    fake_scores = critic(fake.detach())
    real_scores = critic(real)
    loss = score_loss(real_scores, fake_scores, drift, objective)
    return loss + weight * gradient_penalty(critic, real, fake, alpha, target, sided)


def score_loss(
    real_scores: Tensor, fake_scores: Tensor, drift: float, objective: Objective | None
) -> Tensor:
    """The part of the critic's loss that its scores make."""
    if objective is None:
        loss = fake_scores.mean() - real_scores.mean()
    else:
        loss = objective(real_scores, fake_scores)
    return loss + drift * (real_scores**2).mean() if drift else loss


def critic_loss_at_samples(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    at: str,
    weight: float = 5.0,
    target: float = 0.0,
    sided: str = "two",
    drift: float = 0.0,
    objective: Objective | None = None,
) -> Tensor:
    """The same, penalised at the ``real`` samples, at the ``fake`` ones, or at ``both``.

    R1 and R2 of Mescheder et al., 2018 (arXiv 1801.04406): (γ/2) E ‖∇f‖², so weight = γ/2. Two
    calls of the critic: the score and its gradient come from the same one.
    """
    scores, penalties = {}, []
    for name, samples in (("fake", fake.detach()), ("real", real.detach())):
        penalised = at in (name, "both")
        samples.requires_grad_(penalised)
        scores[name] = critic(samples)
        if penalised:
            (gradient,) = torch.autograd.grad(scores[name].sum(), samples, create_graph=True)
            norms = gradient.flatten(1).norm(2, dim=1)
            penalties.append(weight * penalty(norms, target, sided).mean())
    return score_loss(scores["real"], scores["fake"], drift, objective) + sum(penalties)


def dual_norms(critic: Critic, x: Tensor, p: float = 2.0) -> Tensor:
    """‖∇ₓ f(xᵢ)‖ in the norm dual to ℓp, ``(B,)``; of p = 1, 2 or ∞ that is ℓ∞, ℓ2 or ℓ1."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    dual = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[p]
    return torch.linalg.vector_norm(gradient.flatten(1), ord=dual, dim=1)


def family_penalty(
    name: str, critic: Critic, real: Tensor, fake: Tensor, alpha: Tensor, noise: Tensor
) -> Tensor:
    """The penalty of a name, λ not applied; ``noise`` ~ U(0, 1), shaped as ``real``, for DRAGAN."""
    mix = interpolate(real, fake, alpha)
    match name:
        case "gp":  # Gulrajani et al., 2017, arXiv 1704.00028
            return ((dual_norms(critic, mix) - 1) ** 2).mean()
        case "lp":  # Petzka et al., 2018, arXiv 1709.08894
            return (torch.relu(dual_norms(critic, mix) - 1) ** 2).mean()
        case "zero":  # Thanh-Tung et al., 2019, arXiv 1902.03984
            return (dual_norms(critic, mix) ** 2).mean()
        case "r1":  # Mescheder et al., 2018, arXiv 1801.04406; λ = γ/2
            return (dual_norms(critic, real) ** 2).mean()
        case "r2":
            return (dual_norms(critic, fake) ** 2).mean()
        case "r1+r2":
            at_fake, at_real = dual_norms(critic, fake), dual_norms(critic, real)
            return (at_real**2).mean() + (at_fake**2).mean()
        case "dragan":  # Kodali et al., 2017, arXiv 1705.07215
            perturbed = real + 0.5 * real.std(correction=0) * noise
            return ((dual_norms(critic, interpolate(perturbed, real, alpha)) - 1) ** 2).mean()
        case "div":  # Wu et al., 2018, arXiv 1712.01026; λ is its k = 2, the power its p = 6
            return (dual_norms(critic, mix) ** 6).mean()
        case "max":  # Zhou et al., 2019, arXiv 1902.05687
            return dual_norms(critic, mix).max() ** 2
        case "banach-1":  # Adler and Lunz, 2018, arXiv 1806.06621
            return ((dual_norms(critic, mix, 1.0) - 1) ** 2).mean()
        case "banach-2":
            return ((dual_norms(critic, mix, 2.0) - 1) ** 2).mean()
        case "banach-inf":
            return ((dual_norms(critic, mix, math.inf) - 1) ** 2).mean()
    raise ValueError(f"name: no penalty is called {name!r}")


def family_loss(
    name: str,
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    alpha: Tensor,
    noise: Tensor,
    weight: float,
) -> Tensor:
    """E f(fake) − E f(real) + λ P of a named penalty; a call of the critic for each term."""
    loss = critic(fake.detach()).mean() - critic(real).mean()
    return loss + weight * family_penalty(name, critic, real, fake, alpha, noise)


def generator_loss(critic: Critic, fake: Tensor) -> Tensor:
    """−E f(G(z)): the generator climbs the critic."""
    return -critic(fake).mean()


def clip_weights_(parameters: Iterable[Tensor], clip_value: float) -> None:
    """Clamp every parameter to [−c, c], one ``clamp_`` each (1701.07875, algorithm 1)."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.clamp_(-clip_value, clip_value)


def wgan_gp_critic_step(
    generator: nn.Module,
    critic: nn.Module,
    optimizer: Optimizer,
    real: Tensor,
    z: Tensor,
    alpha: Tensor,
    weight: float = 10.0,
) -> Tensor:
    """One critic update of WGAN-GP (1704.00028, algorithm 1); the fakes come with their graph."""
    fake = generator(z)
    loss = critic_loss(critic, real, fake, alpha, weight)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def wgan_critic_step(
    generator: nn.Module,
    critic: nn.Module,
    optimizer: Optimizer,
    real: Tensor,
    z: Tensor,
    clip_value: float = 0.01,
) -> Tensor:
    """One critic update of WGAN and the clipping after it (1701.07875, algorithm 1)."""
    fake = generator(z)
    loss = critic(fake.detach()).mean() - critic(real).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    clip_weights_(critic.parameters(), clip_value)
    return loss.detach()


def wgan_generator_step(
    generator: nn.Module, critic: nn.Module, optimizer: Optimizer, z: Tensor
) -> Tensor:
    """One generator update, the same in both papers; the critic's weights get gradients as well."""
    loss = generator_loss(critic, generator(z))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
