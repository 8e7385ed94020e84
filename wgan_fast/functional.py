"""The functions users call: check the arguments, choose a backend, call it."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from wgan_fast import autograd_route, ops, routes
from wgan_fast.arguments import (
    check_alpha,
    check_choice,
    check_chunk_size,
    check_device,
    check_pair,
)
from wgan_fast.critic_calls import objective_of
from wgan_fast.critic_shapes import shaped, shaped_alone
from wgan_fast.penalties import Penalty, check_factor, check_maximum, check_penalty, weighted
from wgan_fast.penalty_points import draw, points_of

Critic = Callable[..., Any]
Samples = Any
"""A tensor, or a tuple, list or dict of tensors."""

REDUCTIONS = ("mean", "sum", "none")


class PenaltyStats(NamedTuple):
    """What :func:`gradient_penalty` saw; detached, on the samples' device, λ not applied."""

    gradient_norms: Tensor
    """‖∇f(x̂ᵢ)‖, ``(B,)`` or ``(B/pac,)``; of a penalty at both, twice as many: at fake, then real.
    For ``inputs="separate"``, with a column per tensor."""
    penalty: Tensor
    """P, a scalar."""


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
    return autograd_route.norms_and_penalties(critic, x, Penalty())[0]


# fmt: off
@overload
def gradient_penalty(
    critic: Critic, real: Samples, fake: Samples, device: torch.device | str | None = None, *,
    penalty: str | Penalty | None = ..., weight: float | Tensor = ..., target: float | None = ...,
    sided: str | None = ..., alpha: Tensor | None = ...,
    generator: torch.Generator | None = ..., detach: bool = ..., reduction: str = ...,
    return_stats: Literal[False] = ..., backend: str = ..., chunk_size: int | None = ...,
    cond: Any = ..., cond_kwargs: Mapping[str, Any] | None = ..., select: Any = ...,
    pac: int = ..., mask: Any = ..., inputs: str = ...,
) -> Tensor: ...
@overload
def gradient_penalty(
    critic: Critic, real: Samples, fake: Samples, device: torch.device | str | None = None, *,
    penalty: str | Penalty | None = ..., weight: float | Tensor = ..., target: float | None = ...,
    sided: str | None = ..., alpha: Tensor | None = ...,
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
    penalty: str | Penalty | None = None,
    weight: float | Tensor = 1.0,
    target: float | None = None,
    sided: str | None = None,
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
    WGAN-LP, Petzka et al., 2018 (arXiv 1709.08894). ``penalty="r1"`` or another name, or a
    :class:`Penalty`, takes another member of the family, at its own points; ``docs/penalties.md``
    has them all. Where a gradient is zero, the penalty's own gradient is 0, and no epsilon is added
    anywhere.

    Args:
        critic: callable from ``(B, ...)`` to floating point scores whose first size is ``B``.
            Further axes (a patch critic's) are summed per sample. It is called once, on x̂ (for
            ``"r1+r2"`` on fake and on real). Critics of other shapes, with an example each:
            ``docs/critics.md``.
        real: ``(B, ...)`` of rank ≥ 2; float64, float32, bfloat16 or float16. Or a tuple, list or
            dict of such tensors, of equal B, which the critic then gets: one α for all of them.
        fake: shape, dtype and device of ``real``.
        device: accepted for the tutorials' signature ``(critic, real, fake, device)``; must name
            the device that the samples are on.
        penalty: ``"gp"`` if left out, ``"lp"``, ``"zero"``, ``"r1"``, ``"r2"``, ``"r1+r2"``,
            ``"dragan"``, ``"div"``, ``"max"``, ``"banach-1"``, ``"banach-2"``, ``"banach-inf"``; or
            a :class:`Penalty`. Its own weight is not applied.
        weight: λ, multiplies the result; 1 leaves λ to the caller. A number or a 0-dim tensor.
        target: the norm at which the penalty is zero; 1 if left out. Not with ``penalty``.
        sided: ``"two"``, as if left out, or ``"one"``. Not with ``penalty``.
        alpha: ``(B,)`` or ``(B, 1, ..., 1)``; drawn if left out.
        generator: the random number generator for α, and before it for DRAGAN's noise, on the
            samples' device.
        detach: keep the penalty's backward out of the graphs that made ``real`` and ``fake``, the
            generator's above all. ``False`` lets gradients flow into both.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, over the batch. ``"mean"`` alone where the
            penalty is a maximum.
        return_stats: return ``(penalty, PenaltyStats)``.
        backend: ``"explicit"`` (first-order passes), ``"autograd"`` (double backward), or
            ``"auto"``: explicit where it is exact, autograd elsewhere. A named one runs or raises.
            ``"first_order"``, never chosen by itself, takes first derivatives alone and is
            approximate: see :mod:`wgan_fast.first_order` for the measured error.
        chunk_size: take the batch in slices of so many samples, for less memory; the same result.
            The critic must keep its samples apart; its Python runs once per slice, or once for
            all of them where equal slices come again and are replayed.
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
    form = check_penalty(penalty, target=target, sided=sided)
    weight = check_factor(weight)
    check_choice("reduction", reduction, REDUCTIONS)
    check_maximum(form, chunk_size, reduction)

    if detach:
        real, fake = real.detach(), fake.detach()
        alpha = alpha.detach() if isinstance(alpha, Tensor) else alpha
    points = points_of(form, real, fake, draw(form, real, alpha, generator))
    obstacle = None
    if any(samples.requires_grad for samples in points):
        obstacle = "gradients of real and fake, which detach=False asks for, need autograd"
    elif reduction == "none":
        obstacle = 'reduction="none" leaves each sample\'s weight open, which needs autograd'
    found = [
        routes.penalty(critic, samples, form, backend, obstacle, chunk_size) for samples in points
    ]
    values, norms, penalties = zip(*found, strict=True)
    value = functools.reduce(torch.add, penalties if reduction == "none" else values)
    if reduction == "sum":
        value = value * real.shape[0]
    result = weighted(value, weight)
    if not return_stats:
        return result
    seen = form.parts * torch.cat(penalties).detach().mean()
    return result, PenaltyStats(torch.cat(norms).detach(), seen)


def generator_loss(
    critic: Critic,
    fake: Samples,
    *,
    cond: Any = None,
    cond_kwargs: Mapping[str, Any] | None = None,
    select: Any = None,
    pac: int = 1,
) -> Tensor:
    """−E f(fake): what the generator of a WGAN minimises (Arjovsky et al., 2017, arXiv 1701.07875).

    Args:
        critic: callable from ``(B, ...)`` to floating point scores whose first size is ``B``.
        fake: the generator's samples ``(B, ...)``, with their graph; or a tuple, list or dict of
            such tensors, which the critic then gets.
        cond: what the critic is called with besides the samples, as for :func:`critic_loss`; the
            conditions that the fakes were made for. Gradients flow into those that require them.
        cond_kwargs: named arguments of the critic.
        select: which part of its output is the score. Of several scales the expectations are
            added up, as the critic's loss adds theirs.
        pac: samples to a pack, of which the critic makes one score.

    Returns:
        A scalar, float32 (float64 for float64 scores), differentiable as the critic is.

    Raises:
        TypeError, ValueError: as :func:`gradient_penalty`.
    """
    critic, packed = shaped_alone(
        critic, fake, "fake", cond=cond, cond_kwargs=cond_kwargs, select=select, pac=pac
    )
    scores = autograd_route.scores(critic, packed)
    return objective_of(critic, _climbed)(scores, scores)


def _climbed(_: Tensor, fake_scores: Tensor) -> Tensor:
    return -fake_scores.mean()
