"""The functions users call: check the arguments, choose a backend, call it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from wgan_fast import autograd_route, ops, routes
from wgan_fast.arguments import (
    check_alpha,
    check_choice,
    check_chunk_size,
    check_critic,
    check_device,
    check_number,
    check_objective,
    check_pair,
    check_samples,
    choose_alpha,
    parameters_of,
)
from wgan_fast.critic_calls import objective_of
from wgan_fast.critic_shapes import shaped, shaped_alone
from wgan_fast.objectives import Objective
from wgan_fast.penalties import AT, LossSettings

Critic = Callable[..., Any]
Samples = Any
"""A tensor, or a tuple, list or dict of tensors."""

_SIDES = ("two", "one")
_REDUCTIONS = ("mean", "sum", "none")


class PenaltyStats(NamedTuple):
    """What :func:`gradient_penalty` saw; detached, on the samples' device, λ not applied."""

    gradient_norms: Tensor
    """‖∇f(x̂ᵢ)‖₂, ``(B,)`` or ``(B/pac,)``; for ``inputs="separate"`` with a column per tensor."""
    penalty: Tensor
    """(1/B) Σ φ(nᵢ), a scalar."""


class CriticStats(NamedTuple):
    """What :func:`critic_loss` saw; detached scalars on the samples' device."""

    loss: Tensor
    """The loss that was returned."""
    wasserstein: Tensor
    """The critic's estimate of the Wasserstein distance: E f(real) − E f(fake)."""
    penalty: Tensor
    """(1/B) Σ φ(nᵢ), λ not applied; for ``at="both"`` the sum over real and fake."""
    gradient_norm: Tensor
    """(1/B) Σ nᵢ."""
    real_score: Tensor
    """E f(real)."""
    fake_score: Tensor
    """E f(fake)."""


def interpolate(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """x̂ᵢ = αᵢ realᵢ + (1 − αᵢ) fakeᵢ: points on the lines between real and fake samples.

    Algorithm 1 of Gulrajani et al., 2017 (arXiv 1704.00028), where α is called ε. One fused kernel:
    each input is read once, the result written once.

    Args:
        real: ``(B, ...)`` of rank ≥ 2; float64, float32, bfloat16 or float16.
        fake: shape, dtype and device of ``real``.
        alpha: ``(B,)`` or ``(B, 1, ..., 1)``, floating point, on the same device; one per sample.

    Returns:
        Shape, dtype and memory format of ``real``. Computed in float32 (float64 for float64), then
        rounded once. Differentiable any number of times in all three arguments.

    Raises:
        TypeError: an argument is no tensor, not floating point, or ``fake`` has another dtype.
        ValueError: shapes or devices do not match, the rank is below 2 or the batch is empty.
    """
    check_pair(real, fake)
    return ops.interpolate(real, fake, check_alpha(alpha, real))


def gradient_norms(
    critic: Critic,
    x: Samples,
    *,
    cond: Any = None,
    cond_kwargs: Mapping[str, Any] | None = None,
    select: Any = None,
    pac: int = 1,
    mask: Any = None,
    inputs: str = "joint",
) -> Tensor:
    """nᵢ = ‖∇ₓ f(xᵢ)‖₂, the slope of the critic at each sample, over all axes but the batch's.

    Args:
        critic: callable from ``(B, ...)`` to scores whose first size is ``B``; further axes (a
            patch critic's) are summed per sample.
        x: samples, ``(B, ...)`` of rank ≥ 2; or several tensors, see :func:`gradient_penalty`.
        cond: as for :func:`gradient_penalty`, like all that follow.
        cond_kwargs: named arguments of the critic.
        select: which part of its output is the score.
        pac: samples to a pack.
        mask: what the gradient is multiplied by.
        inputs: ``"joint"`` or ``"separate"``.

    Returns:
        ``(B,)``, or ``(B/pac,)``, with a column per tensor for ``inputs="separate"``; float32
        (float64 for float64). Differentiable in the critic's parameters, and in ``x`` if it
        requires gradients, as often as the critic allows; under ``torch.no_grad()`` the values
        alone.

    Raises:
        TypeError: ``critic`` cannot be called or its scores are not floating point; ``x`` is no
            floating point tensor.
        ValueError: ``x`` is empty or has rank 1; the critic does not return one score per sample,
            or a score that does not depend on ``x``.
    """
    critic, x = shaped_alone(
        critic, x, cond=cond, cond_kwargs=cond_kwargs, select=select, pac=pac, mask=mask,
        inputs=inputs,
    )  # fmt: skip
    return autograd_route.norms_and_penalties(critic, x, 0.0, False)[0]


# fmt: off
@overload
def gradient_penalty(
    critic: Critic, real: Samples, fake: Samples, device: torch.device | str | None = None, *,
    weight: float = ..., target: float = ..., sided: str = ..., alpha: Tensor | None = ...,
    generator: torch.Generator | None = ..., detach: bool = ..., reduction: str = ...,
    return_stats: Literal[False] = ..., backend: str = ..., chunk_size: int | None = ...,
    cond: Any = ..., cond_kwargs: Mapping[str, Any] | None = ..., select: Any = ...,
    pac: int = ..., mask: Any = ..., inputs: str = ...,
) -> Tensor: ...
@overload
def gradient_penalty(
    critic: Critic, real: Samples, fake: Samples, device: torch.device | str | None = None, *,
    weight: float = ..., target: float = ..., sided: str = ..., alpha: Tensor | None = ...,
    generator: torch.Generator | None = ..., detach: bool = ..., reduction: str = ...,
    return_stats: Literal[True], backend: str = ..., chunk_size: int | None = ...,
    cond: Any = ..., cond_kwargs: Mapping[str, Any] | None = ..., select: Any = ...,
    pac: int = ..., mask: Any = ..., inputs: str = ...,
) -> tuple[Tensor, PenaltyStats]: ...
# fmt: on
def gradient_penalty(
    critic: Critic,
    real: Samples,
    fake: Samples,
    device: torch.device | str | None = None,
    *,
    weight: float = 1.0,
    target: float = 1.0,
    sided: str = "two",
    alpha: Tensor | None = None,
    generator: torch.Generator | None = None,
    detach: bool = True,
    reduction: str = "mean",
    return_stats: bool = False,
    backend: str = "auto",
    chunk_size: int | None = None,
    cond: Any = None,
    cond_kwargs: Mapping[str, Any] | None = None,
    select: Any = None,
    pac: int = 1,
    mask: Any = None,
    inputs: str = "joint",
) -> Tensor | tuple[Tensor, PenaltyStats]:
    """The gradient penalty of WGAN-GP: P = (1/B) Σᵢ φ(‖∇f(x̂ᵢ)‖₂), φ(n) = (n − target)².

    Gulrajani et al., 2017 (arXiv 1704.00028). x̂ᵢ = αᵢ realᵢ + (1 − αᵢ) fakeᵢ with one
    αᵢ ~ U(0, 1) per sample; the norm runs over all axes but the batch's. λ is the caller's by
    default; ``weight`` applies it here. ``sided="one"`` takes φ(n) = max(0, n − target)² instead:
    WGAN-LP, Petzka et al., 2018 (arXiv 1709.08894). Where a gradient is zero, the penalty's own
    gradient is 0, and no epsilon is added anywhere.

    Args:
        critic: callable from ``(B, ...)`` to floating point scores whose first size is ``B``.
            Further axes (a patch critic's) are summed per sample. It is called once, on x̂.
            Critics of other shapes, with an example each: ``docs/critics.md``.
        real: ``(B, ...)`` of rank ≥ 2; float64, float32, bfloat16 or float16. Or a tuple, list or
            dict of such tensors, of equal B, which the critic then gets: one α for all of them.
        fake: shape, dtype and device of ``real``.
        device: accepted for the tutorials' signature ``(critic, real, fake, device)``; must name
            the device that the samples are on.
        weight: λ, multiplies the result; 1 leaves λ to the caller.
        target: the norm at which the penalty is zero.
        sided: ``"two"`` or ``"one"``.
        alpha: ``(B,)`` or ``(B, 1, ..., 1)``; drawn if left out.
        generator: the random number generator for α, on the samples' device.
        detach: keep the penalty's backward out of the graphs that made ``real`` and ``fake``, the
            generator's above all. ``False`` lets gradients flow into both.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, over the batch.
        return_stats: return ``(penalty, PenaltyStats)``.
        backend: ``"explicit"`` (first-order passes), ``"autograd"`` (double backward), or
            ``"auto"``: explicit where it is exact, autograd elsewhere. A named one runs or raises.
            ``"first_order"``, never chosen by itself, takes first derivatives alone and is
            approximate: see :mod:`wgan_fast.first_order` for the measured error.
        chunk_size: take the batch in slices of so many samples, for less memory; the same result.
            The critic is called once per slice and must keep its samples apart.
        cond: a tensor with a row per sample, or a tuple of them, such as labels: the critic's
            further positional arguments, the same for real, fake and x̂. Gradients flow into
            those that require them, by autograd.
        cond_kwargs: a dict of the critic's named arguments: tensors of B rows have one per sample,
            all else is the same for all.
        select: where the critic does not return the scores alone: their index or key, or a
            function of what it returns. A list or tuple of tensors, as ``select=list`` makes of a
            multi-scale critic's, is one of scales, of which the penalty's gradient is that of
            all their sums.
        pac: samples to a pack, of which the critic makes one score (PacGAN, Lin et al., 2018, arXiv
            1712.04086; CTGAN): from ``(B, ...)`` to B/pac scores. One α per pack; the norm is over
            a pack's samples together.
        mask: what the gradient is multiplied by before its norm is taken (inpainting); broadcasts
            to the samples, ``(B, 1, H, W)`` say, and for several tensors one for each.
        inputs: for several tensors, ``"joint"``: one norm over all their gradients, or
            ``"separate"``: a penalty for each one's gradient, added up.

    Returns:
        A scalar (``(B,)`` for ``reduction="none"``), float32, or float64 for float64 samples.
        Differentiable in the critic's parameters as often as the critic allows, less the one time
        spent here (once under ``"explicit"``); under ``torch.no_grad()`` the value alone.

    Raises:
        TypeError: an argument has the wrong type, e.g. a tensor in the place of ``device``, or
            samples or scores are not floating point.
        ValueError: shapes or devices do not match, the batch is empty, an option is unknown, or
            the critic's score is not one per sample or does not depend on its input.
        Unsupported: ``backend="explicit"`` cannot take this critic or this call (a RuntimeError).
    """
    check_choice("backend", backend, routes.BACKENDS)
    check_chunk_size(chunk_size, backend)
    critic, real, fake, chunk_size = shaped(
        critic, real, fake, cond=cond, cond_kwargs=cond_kwargs, select=select, pac=pac, mask=mask,
        inputs=inputs, chunk_size=chunk_size,
    )  # fmt: skip
    check_device(device, real)
    weight = check_number("weight", weight)
    target = check_number("target", target)
    one_sided = check_choice("sided", sided, _SIDES) == "one"
    check_choice("reduction", reduction, _REDUCTIONS)
    alpha = choose_alpha(alpha, generator, real)

    if detach:
        real, fake, alpha = real.detach(), fake.detach(), alpha.detach()
    interpolates = ops.interpolate(real, fake, alpha)
    obstacle = None
    if interpolates.requires_grad:
        obstacle = "gradients of real and fake, which detach=False asks for, need autograd"
    elif reduction == "none":
        obstacle = 'reduction="none" leaves each sample\'s weight open, which needs autograd'
    value, norms, penalties = routes.penalty(
        critic, interpolates, target, one_sided, backend, obstacle, chunk_size
    )
    if reduction == "none":
        value = penalties
    elif reduction == "sum":
        value = value * real.shape[0]
    result = value if weight == 1.0 else weight * value
    if not return_stats:
        return result
    return result, PenaltyStats(norms.detach(), penalties.detach().mean())


# fmt: off
@overload
def critic_loss(
    critic: Critic, real: Samples, fake: Samples, *, weight: float = ..., target: float = ...,
    sided: str = ..., at: str = ..., objective: str | Objective = ..., alpha: Tensor | None = ...,
    generator: torch.Generator | None = ..., drift: float = ...,
    return_stats: Literal[False] = ..., backend: str = ..., chunk_size: int | None = ...,
    cond: Any = ..., cond_kwargs: Mapping[str, Any] | None = ..., select: Any = ...,
    pac: int = ..., mask: Any = ..., inputs: str = ...,
) -> Tensor: ...
@overload
def critic_loss(
    critic: Critic, real: Samples, fake: Samples, *, weight: float = ..., target: float = ...,
    sided: str = ..., at: str = ..., objective: str | Objective = ..., alpha: Tensor | None = ...,
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
    weight: float = 10.0,
    target: float = 1.0,
    sided: str = "two",
    at: str = "mix",
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
        weight: λ.
        target: the norm at which the penalty is zero.
        sided: ``"two"`` or ``"one"``, see :func:`gradient_penalty`.
        at: ``"mix"`` (at x̂), ``"real"``, ``"fake"`` or ``"both"``.
        objective: ``"wasserstein"``; ``"hinge"``, E max(0, 1 − f(real)) + E max(0, 1 + f(fake));
            ``"nonsaturating"``, E softplus(−f(real)) + E softplus(f(fake)); ``"relativistic"``,
            E softplus(f(fakeᵢ) − f(realᵢ)); or a function of the real and the fake scores, shaped
            as the critic returns them, to a differentiable scalar.
        alpha: ``(B,)`` or ``(B, 1, ..., 1)``; drawn if left out.
        generator: the random number generator for α, on the samples' device.
        drift: factor of the drift term.
        return_stats: return ``(loss, CriticStats)``.
        backend: ``"explicit"`` (first-order passes), ``"autograd"`` (double backward), or
            ``"auto"``: explicit where it is exact, autograd elsewhere. A named one runs or raises.
            ``"first_order"``, never chosen by itself, takes first derivatives alone and is
            approximate: see :mod:`wgan_fast.first_order` for the measured error.
        chunk_size: take the batch in slices of so many samples, for less memory; the same result.
            The critic is called once per slice and must keep its samples apart.
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
    check_choice("backend", backend, routes.BACKENDS)
    check_chunk_size(chunk_size, backend)
    critic, real, fake, chunk_size = shaped(
        critic, real, fake, cond=cond, cond_kwargs=cond_kwargs, select=select, pac=pac, mask=mask,
        inputs=inputs, chunk_size=chunk_size,
    )  # fmt: skip
    settings = loss_settings(weight, target, sided, at, objective, drift)
    settings = settings._replace(objective=objective_of(critic, settings.objective))
    if chunk_size is not None and not isinstance(objective, str):
        raise ValueError(
            "chunk_size: expected None with an objective of your own, which may not be a mean over "
            f"samples, got {chunk_size}"
        )

    real, fake = real.detach(), fake.detach()
    if settings.at == "mix":
        alpha = choose_alpha(alpha, generator, real).detach()
    elif alpha is not None or generator is not None:
        raise ValueError(f"alpha, generator: expected None, no point is drawn for at={at!r}")
    loss, (real_score, fake_score, norms, penalties) = routes.critic_loss(
        critic, real, fake, alpha, settings, backend, chunk_size
    )
    if not return_stats:
        return loss
    both = 2 if settings.at == "both" else 1
    means = both * penalties.mean(), norms.mean()
    seen = (loss, real_score - fake_score, *means, real_score, fake_score)
    return loss, CriticStats(*(value.detach() for value in seen))


def loss_settings(
    weight: float, target: float, sided: str, at: str, objective: str | Objective, drift: float
) -> LossSettings:
    """The settings of :func:`critic_loss`, checked as it checks them."""
    return LossSettings(
        weight=check_number("weight", weight),
        target=check_number("target", target),
        one_sided=check_choice("sided", sided, _SIDES) == "one",
        drift=check_number("drift", drift),
        at=check_choice("at", at, AT),
        objective=check_objective(objective),
    )


def generator_loss(critic: Critic, fake: Tensor) -> Tensor:
    """−E f(fake): what the generator of a WGAN minimises (Arjovsky et al., 2017, arXiv 1701.07875).

    Args:
        critic: callable from ``(B, ...)`` to floating point scores whose first size is ``B``.
        fake: the generator's samples ``(B, ...)``, with their graph.

    Returns:
        A scalar, float32 (float64 for float64 scores), differentiable as the critic is.

    Raises:
        TypeError, ValueError: as :func:`gradient_penalty`.
    """
    check_critic(critic)
    check_samples("fake", fake)
    return -autograd_route.scores(critic, fake).mean()


def clip_weights_(
    module_or_parameters: nn.Module | Tensor | Iterable[Tensor], clip_value: float
) -> None:
    """Clamp every parameter to [−c, c] in place: WGAN's Lipschitz constraint.

    Algorithm 1 of Arjovsky et al., 2017 (arXiv 1701.07875), where c = 0.01; called after each of
    the critic's optimiser steps. One call handles all tensors. NaN stays NaN.

    Args:
        module_or_parameters: a module, whose parameters are clipped and whose buffers (running
            statistics) are not; or a tensor, or an iterable of tensors.
        clip_value: c > 0.

    Raises:
        TypeError: not a module or floating point tensors; ``clip_value`` is no number.
        ValueError: ``clip_value`` is not positive and finite.
    """
    parameters = parameters_of(module_or_parameters)
    clip_value = check_number("clip_value", clip_value, positive=True)
    with torch.no_grad():
        ops.clip_weights_(parameters, clip_value)
