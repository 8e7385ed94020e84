"""``freeze``: the critic's whole loss, penalty and gradients included, as one flat graph."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, overload
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from wgan_fast import ops
from wgan_fast.arguments import describe
from wgan_fast.critic_calls import CriticCall
from wgan_fast.critic_objective import CriticStats, loss_settings
from wgan_fast.critic_shapes import Shaped, shaped
from wgan_fast.double_backward.chunks import Computed
from wgan_fast.double_backward.explicit import attach
from wgan_fast.flat_graph import FlatGraph
from wgan_fast.frozen_function import FrozenFunction
from wgan_fast.objectives import Objective
from wgan_fast.penalties import LossSettings, Penalty, check_penalty
from wgan_fast.penalty_points import draw, stand_in
from wgan_fast.steps import Called, critic_apart, penalised_critic_step, trained

Critic = Callable[..., Any]

# Functions kept per step: one for each way in which the critic is called besides its samples.
_KEPT = 8
_PLAIN = (bool, int, float, str, type(None))


class FrozenStep:
    """What :func:`freeze` returns: ``step(real, fake)`` is ``critic_loss(critic, real, fake)``."""

    def __init__(
        self,
        critic: Critic,
        weight: float,
        settings: LossSettings,
        compile: bool,
        of_shape: Mapping[str, Any],
    ) -> None:
        self.weight = weight
        """λ: an input of the graph, to be changed at will."""
        self._critic = critic
        self._parameters: WeakKeyDictionary[Any, dict[str, nn.Parameter]] = WeakKeyDictionary()
        self._settings = settings
        self._penalty = settings.penalty
        self._mode = "compiled" if compile else "captured"
        self._of_shape = of_shape
        self._frozen: dict[Any, FrozenFunction] = {}

    def _names(self) -> Sequence[str]:
        return ["the loss and the scores", *trained(self._critic)]

    def prepare(self, real: Any, fake: Any, **of_batch: Any) -> None:
        """Make the graph for such samples; nothing that the critic does meanwhile stays."""
        call = self._called(real, fake, of_batch)
        drawn = draw(self._penalty, call.real, None, None)
        drawn = stand_in(self._penalty, call.real) if drawn is None else drawn
        self._function(call).prepared(*self._arguments(call, drawn))

    def graph(self, real: Any, **of_batch: Any) -> FlatGraph | None:
        """The graph for such samples, conditions and masks; None before the first step with them.

        Raises:
            TypeError, ValueError: as a step does.
        """
        call = self._called(real, real, of_batch)
        return self._function(call).graph(
            *self._arguments(call, stand_in(self._penalty, call.real))
        )

    def _called(self, real: Any, fake: Any, of_batch: Mapping[str, Any]) -> Shaped:
        call = shaped(self._critic, real, fake, **self._of_shape, **of_batch)
        if call.real.requires_grad or call.fake.requires_grad:
            return call._replace(real=call.real.detach(), fake=call.fake.detach())
        return call

    def _function(self, called: Shaped) -> FrozenFunction:
        """What is frozen of a critic that is called like this."""
        call = called.critic if isinstance(called.critic, CriticCall) else None
        key = None if call is None else (call.key, call.samples, _constants(call))
        if key not in self._frozen:
            of_call: Called | None = None
            if call is not None:
                of_call = lambda real, fake, more: (call.on(more, len(real)), real, fake)  # noqa: E731
            step = penalised_critic_step(self._critic, self._settings, called=of_call)
            apart = None
            if self._settings.averages and (call is None or not call.shared):
                apart = critic_apart(self._critic, of_call, first=4)
            if len(self._frozen) >= _KEPT:
                self._frozen.pop(next(iter(self._frozen)))
            self._frozen[key] = FrozenFunction(step, [self._critic], self._names, self._mode, apart)
        return self._frozen[key]

    def _arguments(self, called: Shaped, drawn: Tensor) -> tuple[Tensor, ...]:
        critic, real, fake, _ = called
        kind = ops.accumulation_dtype(real.dtype)
        weight = torch.full((), self.weight, dtype=kind, device=real.device)
        more = critic.tensors if isinstance(critic, CriticCall) else []
        return real, fake, drawn, weight, *more

    # fmt: off
    @overload
    def __call__(
        self, real: Any, fake: Any, alpha: Tensor | None = ..., *, cond: Any = ...,
        cond_kwargs: Mapping[str, Any] | None = ..., mask: Any = ...,
        generator: torch.Generator | None = ..., return_stats: Literal[False] = ...,
    ) -> Tensor: ...
    @overload
    def __call__(
        self, real: Any, fake: Any, alpha: Tensor | None = ..., *, cond: Any = ...,
        cond_kwargs: Mapping[str, Any] | None = ..., mask: Any = ...,
        generator: torch.Generator | None = ..., return_stats: Literal[True],
    ) -> tuple[Tensor, CriticStats]: ...
    # fmt: on
    def __call__(
        self,
        real: Any,
        fake: Any,
        alpha: Tensor | None = None,
        *,
        cond: Any = None,
        cond_kwargs: Mapping[str, Any] | None = None,
        mask: Any = None,
        generator: torch.Generator | None = None,
        return_stats: bool = False,
    ) -> Tensor | tuple[Tensor, CriticStats]:
        """The loss, to call ``backward`` on; arguments and result as :func:`critic_loss`'s.

        Raises:
            TypeError, ValueError: as :func:`critic_loss`; or a condition requires gradients, or
                ``cond_kwargs`` has something else than tensors, numbers and strings.
        """
        seen, gradients, parameters = self._run(
            real, fake, alpha, generator, cond=cond, cond_kwargs=cond_kwargs, mask=mask
        )
        numbers = seen.unbind()
        loss = numbers[0]
        if torch.is_grad_enabled():
            leaves: list[Tensor] = list(parameters.values())
            loss = attach(Computed(loss, leaves, gradients, (), ()), _once_only)
        return (loss, CriticStats(*numbers)) if return_stats else loss

    def value_and_grad(
        self,
        real: Any,
        fake: Any,
        alpha: Tensor | None = None,
        *,
        cond: Any = None,
        cond_kwargs: Mapping[str, Any] | None = None,
        mask: Any = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor | None]]:
        """The loss and every parameter's gradient by name, past autograd: no ``backward`` to call.

        None is the gradient of a parameter that the loss does not depend on.
        """
        seen, gradients, parameters = self._run(
            real, fake, alpha, generator, cond=cond, cond_kwargs=cond_kwargs, mask=mask
        )
        return seen[0], dict(zip(parameters, gradients, strict=True))

    def _run(
        self,
        real: Any,
        fake: Any,
        alpha: Tensor | None,
        generator: torch.Generator | None,
        **of_batch: Any,
    ) -> tuple[Tensor, list[Tensor | None], dict[str, nn.Parameter]]:
        called = self._called(real, fake, of_batch)
        drawn = draw(self._penalty, called.real, alpha, generator)
        if drawn is None:
            drawn = stand_in(self._penalty, called.real)
        drawn = drawn.detach() if drawn.requires_grad else drawn
        arguments = self._arguments(called, drawn)
        run = self._function(called).prepared(*arguments)
        if run not in self._parameters:  # what a graph was made for does not change
            self._parameters[run] = trained(self._critic)
        seen, *gradients = run(*arguments)
        assert seen is not None
        return seen, gradients, self._parameters[run]


def _constants(call: CriticCall) -> tuple[Any, ...]:
    """What is written into a graph of such a call: numbers and strings that all samples share."""
    for tensor in call.tensors:
        if tensor.requires_grad:
            raise ValueError(
                "cond: expected tensors that require no gradients, of which a frozen step computes "
                "none; critic_loss does"
            )
    constants = tuple(value for value in call.fixed.values() if not isinstance(value, Tensor))
    for value in constants:
        if type(value) not in _PLAIN:
            raise TypeError(
                f"cond_kwargs: expected tensors, numbers or strings, got {describe(value)}; what "
                "else the critic takes belongs into a closure"
            )
    return tuple((type(value), value) for value in constants)


def _once_only(_: Any) -> Tensor:
    raise RuntimeError(
        "a frozen step gives first derivatives only; to differentiate the loss twice, take "
        "wgan_fast.critic_loss"
    )


def freeze(
    critic: Critic,
    real: Any,
    *,
    penalty: str | Penalty | None = None,
    weight: float | None = None,
    target: float | None = None,
    sided: str | None = None,
    at: str | None = None,
    objective: str | Objective = "wasserstein",
    drift: float = 0.0,
    compile: bool = False,
    cond: Any = None,
    cond_kwargs: Mapping[str, Any] | None = None,
    select: Any = None,
    pac: int = 1,
    mask: Any = None,
    inputs: str = "joint",
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
        cond: conditions like those to come, as for :func:`critic_loss`. Each step is given its own:
            they are inputs of the graph, and integers are as good as other numbers. ``F.one_hot``
            looks at the labels that a graph is made with alone: later ones out of range give rows
            of zeros.
        cond_kwargs: the same by name; numbers and strings in it are constants of the graph, which
            is made anew for others.
        select: which part of the critic's output is the score, for all steps.
        pac: samples to a pack, for all steps.
        mask: a mask like those to come; an input of the graph.
        inputs: ``"joint"`` or ``"separate"``, for all steps.

    Returns:
        ``step(real, fake, alpha=None, *, cond=None, cond_kwargs=None, mask=None, generator=None,
        return_stats=False)``, a scalar that can be differentiated once in the critic's parameters;
        a partial last batch is a shape of its own. Dropout draws new masks in every step.

    Raises:
        TypeError, ValueError: as :func:`critic_loss`.
        TraceError: no graph can stand for the critic: it reads numbers out of tensors, replaces its
            buffers, has backward hooks, is wrapped in DistributedDataParallel, or the graph's first
            result differs from the eager one; the error names the parameter.
    """
    if isinstance(weight, Tensor):
        raise TypeError(f"weight: expected a number, got {describe(weight)}; set step.weight")
    settings = loss_settings(
        check_penalty(penalty, target=target, sided=sided, at=at), weight, objective, drift
    )
    of_shape = {"select": select, "pac": pac, "inputs": inputs}
    of_batch = {"cond": cond, "cond_kwargs": cond_kwargs, "mask": mask}
    there = shaped(critic, real, real, **of_shape, **of_batch).real.device
    step = FrozenStep(critic, float(settings.weight), settings, compile, of_shape)
    with torch.no_grad(), torch.random.fork_rng([there] if there.type == "cuda" else []):
        step.prepare(real, tree_map(_another, real), **of_batch)
    return step


def _another(samples: Tensor) -> Tensor:
    """Samples like these, but not these: on one point twice, real and fake would cancel."""
    return samples + torch.randn_like(samples) * samples.std().nan_to_num(1.0)
