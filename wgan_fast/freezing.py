"""``freeze``: the critic's whole loss, penalty and gradients included, as one flat graph."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from wgan_fast import ops
from wgan_fast.arguments import check_critic, check_pair, check_samples, describe
from wgan_fast.critic_objective import CriticStats, loss_settings
from wgan_fast.double_backward.chunks import Computed
from wgan_fast.double_backward.explicit import attach
from wgan_fast.flat_graph import FlatGraph
from wgan_fast.frozen_function import FrozenFunction
from wgan_fast.objectives import Objective
from wgan_fast.penalties import LossSettings, Penalty, check_penalty
from wgan_fast.penalty_points import draw, stand_in
from wgan_fast.steps import penalised_critic_step, trained

Critic = Callable[[Tensor], Tensor]


class FrozenStep:
    """What :func:`freeze` returns: ``step(real, fake)`` is ``critic_loss(critic, real, fake)``."""

    def __init__(
        self, critic: Critic, weight: float, settings: LossSettings, compile: bool
    ) -> None:
        self.weight = weight
        """λ: an input of the graph, to be changed at will."""
        self._critic = critic
        self._parameters: dict[Any, dict[str, nn.Parameter]] = {}
        self._penalty = settings.penalty
        step = penalised_critic_step(critic, settings)
        mode = "compiled" if compile else "captured"
        self._frozen = FrozenFunction(step, [critic], self._names, mode)

    def _names(self) -> Sequence[str]:
        return ["the loss and the scores", *trained(self._critic)]

    def prepare(self, real: Tensor, fake: Tensor) -> None:
        """Make the graph for such samples; nothing that the critic does meanwhile stays."""
        drawn = draw(self._penalty, real, None, None)
        drawn = stand_in(self._penalty, real) if drawn is None else drawn
        self._frozen.prepared(*self._arguments(real, fake, drawn))

    def graph(self, real: Tensor) -> FlatGraph | None:
        """The graph for such samples; None before the first step with them."""
        return self._frozen.graph(*self._arguments(real, real, stand_in(self._penalty, real)))

    def _arguments(self, real: Tensor, fake: Tensor, drawn: Tensor) -> tuple[Tensor, ...]:
        kind = ops.accumulation_dtype(real.dtype)
        return real, fake, drawn, torch.full((), self.weight, dtype=kind, device=real.device)

    # fmt: off
    @overload
    def __call__(
        self, real: Tensor, fake: Tensor, alpha: Tensor | None = ..., *,
        generator: torch.Generator | None = ..., return_stats: Literal[False] = ...,
    ) -> Tensor: ...
    @overload
    def __call__(
        self, real: Tensor, fake: Tensor, alpha: Tensor | None = ..., *,
        generator: torch.Generator | None = ..., return_stats: Literal[True],
    ) -> tuple[Tensor, CriticStats]: ...
    # fmt: on
    def __call__(
        self,
        real: Tensor,
        fake: Tensor,
        alpha: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        return_stats: bool = False,
    ) -> Tensor | tuple[Tensor, CriticStats]:
        """The loss, to call ``backward`` on; arguments and result as :func:`critic_loss`'s."""
        seen, gradients, parameters = self._run(real, fake, alpha, generator)
        numbers = seen.unbind()
        loss = numbers[0]
        if torch.is_grad_enabled():
            leaves: list[Tensor] = list(parameters.values())
            loss = attach(Computed(loss, leaves, gradients, (), ()), _once_only)
        return (loss, CriticStats(*numbers)) if return_stats else loss

    def value_and_grad(
        self,
        real: Tensor,
        fake: Tensor,
        alpha: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor | None]]:
        """The loss and every parameter's gradient by name, past autograd: no ``backward`` to call.

        None is the gradient of a parameter that the loss does not depend on.
        """
        seen, gradients, parameters = self._run(real, fake, alpha, generator)
        return seen[0], dict(zip(parameters, gradients, strict=True))

    def _run(
        self, real: Tensor, fake: Tensor, alpha: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, list[Tensor | None], dict[str, nn.Parameter]]:
        check_pair(real, fake)
        real, fake = real.detach(), fake.detach()
        drawn = draw(self._penalty, real, alpha, generator)
        if drawn is None:
            drawn = stand_in(self._penalty, real)
        arguments = self._arguments(real, fake, drawn.detach())
        run = self._frozen.prepared(*arguments)
        if run not in self._parameters:  # what a graph was made for does not change
            self._parameters[run] = trained(self._critic)
        seen, *gradients = run(*arguments)
        assert seen is not None
        return seen, gradients, self._parameters[run]


def _once_only() -> Tensor:
    raise RuntimeError(
        "a frozen step gives first derivatives only; to differentiate the loss twice, take "
        "wgan_fast.critic_loss"
    )


def freeze(
    critic: Critic,
    real: Tensor,
    *,
    penalty: str | Penalty | None = None,
    weight: float | None = None,
    target: float | None = None,
    sided: str | None = None,
    at: str | None = None,
    objective: str | Objective = "wasserstein",
    drift: float = 0.0,
    compile: bool = False,
) -> FrozenStep:
    """The critic's loss and its gradients as a flat graph of first-order ops: the fast way twice.

    ``step = freeze(critic, real)``, then ``loss = step(real, fake)`` in place of
    ``critic_loss(critic, real, fake)``: the same numbers, without the Python that leads to them.
    ``torch.compile`` cannot do that: it refuses a loss with a gradient penalty with "torch.compile
    with aot_autograd does not currently support double backward".

    The critic's Python runs while its graph is made and not after. The graph is made anew, once
    for each, when the samples' shape, strides, dtype or device change, or a module's training flag,
    a plain attribute, a submodule, a hook, a parameter's identity, dtype or ``requires_grad``, or
    autocast. Each new graph is compared with the eager loss before it is used. Numbers that the
    critic takes from elsewhere (globals, files, its own count of calls) are constants of the graph.

    Args:
        critic: as for :func:`critic_loss`; all its parameters must belong to modules.
        real: samples like those to come, ``(B, ...)``; the graph for them is made at once.
        penalty: a name or a :class:`Penalty`, as for :func:`critic_loss`.
        weight: λ, the penalty's own if left out; ``step.weight`` can be set at any time, without a
            new graph.
        target: the norm at which the penalty is zero; 1 if left out. Not with ``penalty``.
        sided: ``"two"``, as if left out, or ``"one"``. Not with ``penalty``.
        at: ``"mix"``, as if left out, ``"real"``, ``"fake"``, ``"both"`` or ``"dragan"``. Not with
            ``penalty``.
        objective: as for :func:`critic_loss`.
        drift: factor of E f(real)².
        compile: hand the graph to Inductor: seconds to tens of seconds, once per graph.

    Returns:
        ``step(real, fake, alpha=None, *, generator=None, return_stats=False)``, a scalar that can
        be differentiated once in the critic's parameters; a partial last batch is a shape of its
        own. Dropout draws new masks in every step.

    Raises:
        TypeError, ValueError: as :func:`critic_loss`.
        TraceError: no graph can stand for the critic: it reads numbers out of tensors, replaces its
            buffers, has backward hooks, is wrapped in DistributedDataParallel, or the graph's first
            result differs from the eager one; the error names the parameter.
    """
    check_critic(critic)
    check_samples("real", real)
    if isinstance(weight, Tensor):
        raise TypeError(f"weight: expected a number, got {describe(weight)}; set step.weight")
    settings = loss_settings(
        check_penalty(penalty, target=target, sided=sided, at=at), weight, objective, drift
    )
    step = FrozenStep(critic, float(settings.weight), settings, compile)
    with torch.no_grad(), torch.random.fork_rng([real.device] if real.is_cuda else []):
        # Samples like these, but not these: on one point twice, real and fake would cancel.
        fake = real + torch.randn_like(real) * real.std().nan_to_num(1.0)
        step.prepare(real.detach(), fake)
    return step
