"""``critic_loss``: the whole objective of a critic, in as few passes as it takes."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from wgan_fast import ops, routes
from wgan_fast.arguments import check_choice, check_chunk_size, check_number, check_objective
from wgan_fast.critic_calls import objective_of
from wgan_fast.critic_shapes import Shaped, shaped
from wgan_fast.objectives import Objective
from wgan_fast.penalties import (
    LossSettings,
    Penalty,
    check_maximum,
    check_penalty,
    check_weight,
)
from wgan_fast.penalty_points import draw

Critic = Callable[..., Any]
Samples = Any
"""A tensor, or a tuple, list or dict of tensors."""


class CriticStats(NamedTuple):
    """What :func:`critic_loss` saw; detached scalars on the samples' device."""

    loss: Tensor
    """The loss that was returned."""
    wasserstein: Tensor
    """The critic's estimate of the Wasserstein distance: E f(real) − E f(fake)."""
    penalty: Tensor
    """P, λ not applied; for ``at="both"`` the sum over real and fake."""
    gradient_norm: Tensor
    """(1/B) Σ nᵢ."""
    real_score: Tensor
    """E f(real)."""
    fake_score: Tensor
    """E f(fake)."""


# fmt: off
@overload
def critic_loss(
    critic: Critic, real: Samples, fake: Samples, *, penalty: str | Penalty | None = ...,
    weight: float | Tensor | None = ..., target: float | None = ..., sided: str | None = ...,
    at: str | None = ..., objective: str | Objective = ..., alpha: Tensor | None = ...,
    generator: torch.Generator | None = ..., drift: float = ...,
    return_stats: Literal[False] = ..., backend: str = ..., chunk_size: int | None = ...,
    cond: Any = ..., cond_kwargs: Mapping[str, Any] | None = ..., select: Any = ...,
    pac: int = ..., mask: Any = ..., inputs: str = ...,
) -> Tensor: ...
@overload
def critic_loss(
    critic: Critic, real: Samples, fake: Samples, *, penalty: str | Penalty | None = ...,
    weight: float | Tensor | None = ..., target: float | None = ..., sided: str | None = ...,
    at: str | None = ..., objective: str | Objective = ..., alpha: Tensor | None = ...,
    generator: torch.Generator | None = ..., drift: float = ...,
    return_stats: Literal[True], backend: str = ..., chunk_size: int | None = ...,
    cond: Any = ..., cond_kwargs: Mapping[str, Any] | None = ..., select: Any = ...,
    pac: int = ..., mask: Any = ..., inputs: str = ...,
) -> tuple[Tensor, CriticStats]: ...
# fmt: on
def critic_loss(
    critic: Critic,
    real: Samples,
    fake: Samples,
    *,
    penalty: str | Penalty | None = None,
    weight: float | Tensor | None = None,
    target: float | None = None,
    sided: str | None = None,
    at: str | None = None,
    objective: str | Objective = "wasserstein",
    alpha: Tensor | None = None,
    generator: torch.Generator | None = None,
    drift: float = 0.0,
    return_stats: bool = False,
    backend: str = "auto",
    chunk_size: int | None = None,
    cond: Any = None,
    cond_kwargs: Mapping[str, Any] | None = None,
    select: Any = None,
    pac: int = 1,
    mask: Any = None,
    inputs: str = "joint",
) -> Tensor | tuple[Tensor, CriticStats]:
    """The whole critic loss: E f(fake) − E f(real) + λ E φ(‖∇f(x̂)‖₂) + drift E f(real)².

    Algorithm 1 of Gulrajani et al., 2017 (arXiv 1704.00028), to be minimised; x̂, φ and the norm as
    in :func:`gradient_penalty`. The drift term is ProGAN's (Karras et al., 2018, arXiv 1710.10196),
    whose factor there is 0.001.

    ``penalty="r1"`` or another name, or a :class:`Penalty`, takes another member of the family in
    the place of E φ, at its own points, with its own λ; ``docs/penalties.md`` has them all.

    ``at`` says where the gradient is penalised. ``target=0`` makes φ(n) = n²; with it,
    ``at="real"`` is R1, ``at="fake"`` R2, and ``at="both"`` the sum of the two means (Mescheder et
    al., 2018, arXiv 1801.04406). Their weight is γ/2: ``weight=γ/2`` gives (γ/2) E ‖∇f‖². The
    samples are then penalised in the same passes that give the loss. ``objective`` puts another
    loss of the scores in the place of E f(fake) − E f(real). ``real`` and ``fake`` are taken as
    data: no gradient flows into them, so ``fake`` may come with its generator's graph or, cheaper,
    without.

    Args:
        critic: callable from ``(B, ...)`` to floating point scores whose first size is ``B``; for a
            patch critic the expectations average over the patches, the penalty's gradient is that
            of their sum, as in textbook code. Called once, on all samples as one batch, where
            samples are proven not to see each other and the critic keeps no state (on a CPU, in
            slices where its activations outgrow the cache); else on ``fake``, ``real`` and x̂, in
            this order (on x̂ only for ``at="mix"``). A spectral
            norm's power iteration runs once per call. Dropout in one batch draws other masks than
            in three.
        real: ``(B, ...)`` of rank ≥ 2; float64, float32, bfloat16 or float16; or several tensors.
        fake: shape, dtype and device of ``real``.
        penalty: a name or a :class:`Penalty`, as for :func:`gradient_penalty`.
        weight: λ, a number or a 0-dim tensor, into which no gradient flows; the penalty's own if
            left out, which is 10 without ``penalty``.
        target: the norm at which the penalty is zero; 1 if left out. Not with ``penalty``.
        sided: ``"two"``, as if left out, or ``"one"``. Not with ``penalty``.
        at: ``"mix"`` (at x̂), as if left out, ``"real"``, ``"fake"``, ``"both"`` or ``"dragan"``,
            see :class:`Penalty`. Not with ``penalty``.
        objective: ``"wasserstein"``; ``"hinge"``, E max(0, 1 − f(real)) + E max(0, 1 + f(fake));
            ``"nonsaturating"``, E softplus(−f(real)) + E softplus(f(fake)); ``"relativistic"``,
            E softplus(f(fakeᵢ) − f(realᵢ)); or a function of the real and the fake scores, shaped
            as the critic returns them, to a differentiable scalar.
        alpha: ``(B,)`` or ``(B, 1, ..., 1)``; drawn if left out.
        generator: the random number generator for α, and before it for DRAGAN's noise, on the
            samples' device.
        drift: factor of the drift term.
        return_stats: return ``(loss, CriticStats)``.
        backend: ``"explicit"`` (first-order passes), ``"autograd"`` (double backward), or
            ``"auto"``: explicit where it is exact, autograd elsewhere. A named one runs or raises.
            ``"first_order"``, never chosen by itself, takes first derivatives alone and is
            approximate: see :mod:`wgan_fast.first_order` for the measured error.
        chunk_size: take the batch in slices of so many samples, for less memory; the same result.
            The critic must keep its samples apart; its Python runs once per slice, or once for
            all of them where equal slices come again and are replayed.
        cond: as for :func:`gradient_penalty`, like all that follow.
        cond_kwargs: named arguments of the critic.
        select: which part of its output is the score; the losses of a multi-scale critic's scales
            are added up, as pix2pixHD does (Wang et al., 2018, arXiv 1711.11585).
        pac: samples to a pack.
        mask: what the gradient is multiplied by.
        inputs: ``"joint"`` or ``"separate"``.

    Returns:
        A scalar, float32, or float64 for float64 samples; differentiable in the critic's parameters
        as :func:`gradient_penalty` is.

    Raises:
        TypeError, ValueError: as :func:`gradient_penalty`.
    """
    form = check_penalty(penalty, target=target, sided=sided, at=at)
    (critic, real, fake, chunk_size), settings = checked(
        critic, real, fake, form, weight, objective, drift, backend, chunk_size=chunk_size,
        cond=cond, cond_kwargs=cond_kwargs, select=select, pac=pac, mask=mask, inputs=inputs,
    )  # fmt: skip
    real, fake = real.detach(), fake.detach()
    drawn = draw(settings.penalty, real, alpha, generator)
    loss, (real_score, fake_score, norms, penalties) = routes.critic_loss(
        critic, real, fake, None if drawn is None else drawn.detach(), settings, backend, chunk_size
    )
    if not return_stats:
        return loss
    means = settings.penalty.parts * penalties.mean(), norms.mean()
    seen = (loss, real_score - fake_score, *means, real_score, fake_score)
    return loss, CriticStats(*(value.detach() for value in seen))


def checked(
    critic: Critic,
    real: Samples,
    fake: Samples,
    penalty: Penalty,
    weight: float | Tensor | None,
    objective: str | Objective,
    drift: float,
    backend: str,
    *,
    chunk_size: int | None,
    **of_shape: Any,
) -> tuple[Shaped, LossSettings]:
    """What :func:`critic_loss` takes, checked, as the backends take it."""
    check_choice("backend", backend, routes.BACKENDS)
    check_chunk_size(chunk_size, backend)
    call = shaped(critic, real, fake, chunk_size=chunk_size, **of_shape)
    settings = loss_settings(penalty, weight, objective, drift)
    settings = settings._replace(objective=objective_of(call.critic, settings.objective))
    if isinstance(settings.weight, Tensor):
        kind = ops.accumulation_dtype(call.real.dtype)
        settings = settings._replace(weight=settings.weight.to(kind))
    if chunk_size is not None and not isinstance(objective, str):
        raise ValueError(
            "chunk_size: expected None with an objective of your own, which may not be a mean over "
            f"samples, got {chunk_size}"
        )
    check_maximum(penalty, chunk_size, "mean")
    return call, settings


def loss_settings(
    penalty: Penalty,
    weight: float | Tensor | None = None,
    objective: str | Objective = "wasserstein",
    drift: float = 0.0,
) -> LossSettings:
    """The settings of :func:`critic_loss`, checked as it checks them."""
    return LossSettings(
        weight=check_weight(weight, penalty),
        penalty=penalty,
        drift=check_number("drift", drift),
        objective=check_objective(objective),
    )
