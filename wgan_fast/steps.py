"""The steps of a training iteration as functions of tensors: what is frozen, captured or called.

Each takes tensors and gives tensors, gradients among them; what modules it uses it holds. The
gradients come in the order of the parameters that :func:`trained` names.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from wgan_fast import autograd_route, routes
from wgan_fast.arguments import describe
from wgan_fast.critic_calls import objective_of
from wgan_fast.critic_shapes import packed_call, shaped_alone
from wgan_fast.double_backward.apart import keeps_apart
from wgan_fast.double_backward.choice import modules_of, unwrapped
from wgan_fast.double_backward.explicit import gradients_of
from wgan_fast.double_backward.rules.base import plus
from wgan_fast.flat_graph import TraceError, UncheckedOneHot
from wgan_fast.objectives import nonsaturating, score_loss, wasserstein
from wgan_fast.penalties import LossSettings
from wgan_fast.sample_forms import Form
from wgan_fast.side_by_side import Apart

Step = Callable[..., list[Tensor | None]]
Called = Callable[[Tensor, Tensor, tuple[Tensor, ...]], tuple[Any, Tensor, Tensor]]
"""From real and fake samples and what else a step is given to the critic and the samples that the
backends take: see :mod:`wgan_fast.critic_shapes`."""

STATISTICS = ("loss", "wasserstein", "penalty", "gradient_norm", "real_score", "fake_score")
"""What the first result of a critic's step holds, in this order."""


def trained(owner: Any) -> dict[str, nn.Parameter]:
    """The parameters behind a critic or a generator that take gradients, by name."""
    return {
        name: parameter
        for module in modules_of(owner)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def calling(critic: Any, form: Form, select: Any, separate: bool, masked: bool) -> Called:
    """A critic of samples in a form; what else a step is given are conditions, last the mask."""
    critic = unwrapped(critic)

    def called(real: Tensor, fake: Tensor, more: tuple[Tensor, ...]) -> tuple[Any, Tensor, Tensor]:
        cond, mask = (more[:-1], more[-1]) if masked else (more, None)
        call = packed_call(
            critic, real, form, cond=cond, select=select, mask=mask, separate=separate
        )
        return call, real, fake

    return called


def critic_apart(critic: Any, called: Called | None, first: int) -> Apart:
    """Whether a critic's step on parts of its batch is proven to give the batch's by their mean.

    ``called`` makes the critic's call of what the step is given from its argument ``first`` on.
    """
    critic = unwrapped(critic)

    def proven(parts: list[tuple[Tensor, ...]]) -> bool:
        real, fake, *_ = parts[0]
        # What is asked is not of the conditions' numbers: each part may have the first one's.
        call = critic if called is None else called(real, fake, parts[0][first:])[0]
        with UncheckedOneHot():  # which would read the labels, and what is read is not proven
            return keeps_apart(call, [part[0] for part in parts])

    return proven


def generator_apart(generator: Any, critic: Any) -> Apart:
    """The same of a generator's step without conditions."""
    generator, critic = unwrapped(generator), unwrapped(critic)

    def scores(z: Tensor) -> Any:
        return critic(generator(z))

    def proven(parts: list[tuple[Tensor, ...]]) -> bool:
        return len(parts[0]) == 1 and keeps_apart(scores, [z for (z,) in parts])

    return proven


def penalised_critic_step(
    critic: Any, settings: LossSettings, backend: str = "auto", called: Called | None = None
) -> Step:
    """``step(real, fake, drawn, weight, *more)``: [statistics, *gradients] of ``critic_loss``.

    ``weight`` is λ, 0-dim; ``drawn`` is what ``penalty_points`` drew, not looked at if nothing.
    ``called`` makes the critic's call of ``more``, which is nothing without it.
    """
    critic = unwrapped(critic)

    def step(
        real: Tensor, fake: Tensor, drawn: Tensor, weight: Tensor, *more: Tensor
    ) -> list[Tensor | None]:
        used = drawn if settings.penalty.between else None
        call = critic
        if called is not None:
            call, real, fake = called(real, fake, more)
        objective = objective_of(call, settings.objective)
        with torch.enable_grad():
            loss, (real_score, fake_score, norms, penalties) = routes.critic_loss(
                call, real, fake, used, settings._replace(weight=weight, objective=objective),
                backend,
            )  # fmt: skip
            gradients = _gradients(loss, critic)
        means = settings.penalty.parts * penalties.mean(), norms.mean(), real_score, fake_score
        seen = [value.detach() for value in (loss, real_score - fake_score, *means)]
        return [torch.stack(seen), *gradients]

    return step


def plain_critic_step(critic: Any, saturating: bool, drift: float, called: Called) -> Step:
    """``step(real, fake, *more)``: [statistics, *gradients] of a critic's loss without a penalty.

    E f(fake) − E f(real), or DCGAN's cross-entropy if not ``saturating``, and drift E f(real)²; one
    batch where samples keep apart.
    """
    critic = unwrapped(critic)
    of_scores = wasserstein if saturating else nonsaturating

    def step(real: Tensor, fake: Tensor, *more: Tensor) -> list[Tensor | None]:
        call, real, fake = called(real, fake, more)
        objective = objective_of(call, of_scores)
        with torch.enable_grad():
            real_scores, fake_scores = routes.scores_of_both(call, real, fake)
            loss = score_loss(objective, drift, real_scores, fake_scores)
            gradients = _gradients(loss, critic)
        means = real_scores.mean(), fake_scores.mean()
        nothing = torch.zeros_like(loss)
        seen = [v.detach() for v in (loss, means[0] - means[1], nothing, nothing, *means)]
        return [torch.stack(seen), *gradients]

    return step


def regularised(step: Step, critic: Any, regulariser: Callable[[Any], Tensor]) -> Step:
    """A critic's step with ``regulariser(critic)``, a scalar, added to its loss."""
    critic = unwrapped(critic)

    def with_more(*arguments: Tensor) -> list[Tensor | None]:
        seen, *gradients = step(*arguments)
        assert seen is not None
        with torch.enable_grad():
            more = regulariser(critic)
            if not isinstance(more, Tensor) or more.dim():
                raise TypeError(
                    f"regulariser: expected it to return a scalar, got {describe(more)}"
                )
            of_more = _gradients(more, critic)
        pairs = zip(gradients, of_more, strict=True)
        first = torch.cat((more.detach().reshape(1).to(seen.dtype), torch.zeros_like(seen[1:])))
        return [seen + first, *(plus(one, other) for one, other in pairs)]

    return with_more


def generator_step(
    generator: Any, critic: Any, saturating: bool, select: Any = None, pac: int = 1
) -> Step:
    """``step(z, *cond)``: [loss, *gradients] of −E f(G(z)).

    If not ``saturating``, of −E log σ(f(G(z))). Generator and critic take the same conditions; the
    losses of several scales are added up.
    """
    generator, critic = unwrapped(generator), unwrapped(critic)

    def climbed(_: Tensor, fake_scores: Tensor) -> Tensor:
        return -fake_scores.mean() if saturating else F.softplus(-fake_scores).mean()

    def step(z: Tensor, *cond: Tensor) -> list[Tensor | None]:
        with torch.enable_grad():
            fake = generator(z, *cond)
            call, fake = shaped_alone(
                critic, fake, "fake", cond=cond or None, select=select, pac=pac
            )
            scores = autograd_route.scores(call, fake)
            loss = objective_of(call, climbed)(scores, scores)
            gradients = _gradients(loss, generator)
        return [loss.detach(), *gradients]

    return step


def sampling_apart(generator: Any, steps: int) -> Apart:
    """Whether fakes of parts of all z, which have none but z, are proven to be those of all."""
    generator = unwrapped(generator)

    def proven(parts: list[tuple[Tensor, ...]]) -> bool:
        z, *cond = parts[0]
        return not cond and len(z) % steps == 0 and keeps_apart(generator, [z for (z,) in parts])

    return proven


def sampling(generator: Any, form: Form, steps: int) -> Step:
    """``step(z, *cond)``: [fakes] of z ``(steps·B, ...)``, and of conditions of such shapes.

    By one call of the generator where it may be, else by one for each of the ``steps``. The fakes,
    which have to be in the form of the real samples, are packed as these are.
    """
    generator = unwrapped(generator)

    def checked(fakes: Any) -> Any:
        form.check_made("generator", fakes)
        return fakes

    def side_by_side(fakes: Any) -> Tensor:
        return Form(checked(fakes), 1).packed(fakes)

    def step(z: Tensor, *cond: Tensor) -> list[Tensor | None]:
        with torch.no_grad():
            parts, *conditions = (one.chunk(steps) for one in (z, *cond))
            # What is asked is not of the conditions' numbers: each part may have the first one's.
            first = tuple(one[0] for one in conditions) or None
            select = None if form.single else side_by_side
            call, _ = shaped_alone(generator, parts[0], "z", cond=first, select=select)
            with UncheckedOneHot():  # which would read the labels, and what is read is not proven
                apart = steps > 1 and keeps_apart(call, parts)
            if apart:
                fakes = checked(generator(z, *cond))
            else:
                each = [checked(generator(*part)) for part in zip(parts, *conditions, strict=True)]
                fakes = tree_map(lambda *made: torch.cat(made), *each)
            return [form.packed(fakes)]

    return step


def _gradients(loss: Tensor, owner: Any) -> Sequence[Tensor | None]:
    """∂ loss / ∂ each trained parameter of ``owner``; None where it does not depend on one."""
    parameters = list(trained(owner).values())
    held = gradients_of(loss)
    if held is None:
        if not loss.requires_grad:
            raise TraceError("its loss depends on no parameter that takes gradients")
        found: Sequence[Tensor | None] = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [_laid_out(g, p) for g, p in zip(found, parameters, strict=True)]
    strangers = held.keys() - {id(parameter) for parameter in parameters}
    if strangers:
        raise TraceError("the critic uses a parameter that belongs to none of its modules")
    return [_laid_out(held.get(id(parameter)), parameter) for parameter in parameters]


def _laid_out(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """In the parameter's own strides, as a fused optimiser takes it to be."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
