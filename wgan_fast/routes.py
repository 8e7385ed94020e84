"""Which backend computes a penalty or a critic loss: the one named, or for ``auto`` the best.

``auto`` takes the explicit engine wherever it is exact and falls back to autograd elsewhere; both
give the same numbers. A named backend runs or raises.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wgan_fast import autograd_route, first_order
from wgan_fast.arguments import independent_score_error
from wgan_fast.double_backward import choice, explicit
from wgan_fast.double_backward.apart import keeps_apart
from wgan_fast.double_backward.errors import (
    CrossSample,
    Independent,
    NoDoubleBackward,
    Unsupported,
)
from wgan_fast.double_backward.mean_score import mean_score as of_one_call
from wgan_fast.double_backward.moment import Changes, Moment
from wgan_fast.objectives import score_loss
from wgan_fast.penalties import LossSettings, Penalty
from wgan_fast.penalty_points import points_of

BACKENDS = ("auto", "explicit", "autograd", "first_order")
Critic = Callable[[Tensor], Tensor]


def takes_explicit(critic: Any, backend: str, obstacle: str | None) -> bool:
    """Whether to try the explicit engine; ``obstacle`` is what in the call it cannot do.

    Raises:
        Unsupported: ``backend="explicit"``, and something stands in its way; or torch.func.
    """
    if torch._C._are_functorch_transforms_active():
        raise Unsupported(
            "critic: a penalty inside of a torch.func transform cannot be differentiated; "
            "take loss.backward() or torch.autograd.grad"
        )
    if backend in ("autograd", "first_order"):
        return False
    if backend == "auto" and (not torch.is_grad_enabled() or choice.unsupported.get(critic)):
        return False
    obstacle = obstacle or choice.refusal(critic)
    if obstacle is not None and backend == "explicit":
        raise Unsupported(f'backend="explicit": {obstacle}')
    return obstacle is None


def cannot_be_cut(reason: CrossSample) -> ValueError:
    """The error for ``chunk_size`` on a critic whose samples depend on each other."""
    return ValueError(
        f"chunk_size: expected a critic whose samples do not see each other, but {reason}; "
        "leave chunk_size out"
    )


def once_more(critic: Any, compute: Callable[[], Tensor], *samples: Tensor) -> Any:
    """``compute`` of samples, to be run later as it would run now, without a trace."""
    moment, versions = Moment(critic, samples[0].device), list(map(_version, samples))

    def again(changed: Changes) -> Tensor:
        if list(map(_version, samples)) != versions:
            raise RuntimeError(
                "create_graph=True: the samples were modified after the loss was computed"
            )
        with moment.again(changed):
            return compute()

    return again


def _version(samples: Tensor) -> int:
    """How often they were written into; tensors of inference mode do not count."""
    return 0 if samples.is_inference() else samples._version


def penalty(
    critic: Critic,
    x: Tensor,
    form: Penalty,
    backend: str,
    obstacle: str | None,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(mean penalty, norms, penalties) at the points ``x``."""
    critic = choice.unwrapped(critic)
    if backend == "first_order":
        if obstacle is not None:
            raise Unsupported(f'backend="first_order": {obstacle}')
        return first_order.penalty(critic, x, form)

    def by_autograd() -> tuple[Tensor, Tensor, Tensor]:
        norms, penalties = autograd_route.norms_and_penalties(critic, x, form)
        return penalties.mean(), norms, penalties

    if takes_explicit(critic, backend, obstacle):
        again = explicit.refuse
        if backend == "auto":
            again = once_more(critic, lambda: by_autograd()[0], x)
        try:
            return explicit.gradient_penalty(critic, x, form, chunk_size, again)
        except CrossSample as error:
            raise cannot_be_cut(error) from error
        except Independent as error:
            if backend == "explicit":
                raise independent_score_error() from error
        except Unsupported as error:
            if backend == "explicit" or isinstance(error, NoDoubleBackward):
                raise
            choice.unsupported.set(critic, str(error))
    return by_autograd()


def critic_loss(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    drawn: Tensor | None,
    settings: LossSettings,
    backend: str,
    chunk_size: int | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(loss, (real score, fake score, norms, penalties)); ``drawn`` by ``penalty_points``."""
    critic = choice.unwrapped(critic)
    about = settings.at, real.shape

    def unmerged(backend: str) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        if settings.penalty.between or backend == "first_order":
            return in_calls_apart(critic, real, fake, drawn, settings, backend)
        if backend == "explicit":
            raise Unsupported(
                f'backend="explicit": at={settings.at!r} takes loss and penalty in one batch, but '
                f"{choice.unmerged.get(critic, *about) or 'the samples may see each other'}"
            )
        return in_two_calls(critic, real, fake, settings)

    merges = chunk_size is not None or not choice.unmerged.get(critic, *about)
    if takes_explicit(critic, backend, None) and merges:
        again = explicit.refuse
        if backend == "auto":
            given = [real, fake] if drawn is None else [real, fake, drawn]
            again = once_more(critic, lambda: unmerged("autograd")[0], *given)
        try:
            done = explicit.critic_loss(critic, real, fake, drawn, settings, chunk_size, again)
            if better := explicit.better_apart(critic, real, settings.at):
                choice.unmerged.set(critic, better, *about)  # from the next call on
            return done
        except CrossSample as error:
            if chunk_size is not None:
                raise cannot_be_cut(error) from error
            choice.unmerged.set(critic, str(error), *about)
        except Independent as error:
            if backend == "explicit":
                raise independent_score_error() from error
        except Unsupported as error:
            if backend == "explicit" or isinstance(error, NoDoubleBackward):
                raise
            choice.unsupported.set(critic, str(error))
    return unmerged(backend)


def scores_of_both(critic: Critic, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """(real scores, fake scores) without a penalty: one call where samples keep apart, or two."""
    critic = choice.unwrapped(critic)
    if keeps_apart(critic, (real, fake)):
        real_scores, fake_scores = autograd_route.scores(critic, torch.cat((real, fake))).chunk(2)
        return real_scores, fake_scores
    return autograd_route.scores(critic, real), autograd_route.scores(critic, fake)


def mean_score(critic: Critic, x: Tensor, backend: str) -> Tensor:
    """E f(x), by a call of its own."""

    def by_autograd() -> Tensor:
        return autograd_route.scores(critic, x).mean()

    if takes_explicit(critic, backend, None):
        again = explicit.refuse
        if backend == "auto":
            again = once_more(critic, by_autograd, x)
        try:
            return of_one_call(critic, x, again)
        except Unsupported as error:
            if backend == "explicit" or isinstance(error, NoDoubleBackward):
                raise
            choice.unsupported.set(critic, str(error))
    return by_autograd()


def in_calls_apart(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    drawn: Tensor | None,
    settings: LossSettings,
    backend: str,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The critic on fake, on real and on the points of the penalty, in this order."""
    if settings.uniform and explicit.better_apart(critic, real, settings.at):
        fake_score, real_score = (mean_score(critic, x, backend) for x in (fake, real))
        loss, means = fake_score - real_score, (real_score.detach(), fake_score.detach())
    else:
        fake_scores = autograd_route.scores(critic, fake)
        real_scores = autograd_route.scores(critic, real)
        loss = score_loss(settings.objective, settings.drift, real_scores, fake_scores)
        means = real_scores.mean(), fake_scores.mean()
    norms: list[Tensor] = []
    penalties: list[Tensor] = []
    for samples in points_of(settings.penalty, real, fake, drawn):
        value, *found = penalty(critic, samples, settings.penalty, backend, None)
        loss = loss + settings.weight * value
        norms.append(found[0])
        penalties.append(found[1])
    return loss, (*means, torch.cat(norms), torch.cat(penalties))


def in_two_calls(
    critic: Critic, real: Tensor, fake: Tensor, settings: LossSettings
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The critic on fake and on real, by autograd; scores and penalty from the same call."""
    scores: dict[str, Tensor] = {}
    norms: list[Tensor] = []
    penalties: list[Tensor] = []
    value: float | Tensor = 0.0
    for name, samples in (("fake", fake), ("real", real)):
        if settings.at in (name, "both"):
            scores[name], *found = autograd_route.scores_norms_and_penalties(
                critic, samples, settings.penalty
            )
            norms.append(found[0])
            penalties.append(found[1])
            value = value + settings.weight * found[1].mean()
        else:
            scores[name] = autograd_route.scores(critic, samples)
    loss = value + score_loss(settings.objective, settings.drift, scores["real"], scores["fake"])
    means = scores["real"].mean(), scores["fake"].mean()
    return loss, (*means, torch.cat(norms), torch.cat(penalties))
