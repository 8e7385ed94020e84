"""``CriticLoop``: a whole training iteration of a WGAN as one object."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wgan_fast import ops
from wgan_fast.arguments import check_choice, check_number, check_samples, describe
from wgan_fast.captured_iteration import CapturedIteration
from wgan_fast.critic_objective import loss_settings
from wgan_fast.cuda_graph import CUDAGraph, Graph
from wgan_fast.frozen_function import MODES, FrozenFunction, Function
from wgan_fast.loop_arguments import (
    check_callable,
    check_module,
    check_optimizer,
    check_penalty_of,
    check_shape,
)
from wgan_fast.penalties import Penalty
from wgan_fast.penalty_points import around
from wgan_fast.routes import BACKENDS
from wgan_fast.signature import Signature
from wgan_fast.steps import (
    Step,
    generator_step,
    penalised_critic_step,
    plain_critic_step,
    regularised,
    sampling,
    trained,
)

logger = logging.getLogger("wgan_fast")

OBJECTIVES = ("wgan-gp", "wgan", "dcgan")
_KEPT = 4


class LoopStats(NamedTuple):
    """Means over an iteration's critic steps; 0-dim tensors on the device, nothing waits for it."""

    critic_loss: Tensor
    wasserstein: Tensor | None
    """E f(real) − E f(fake); None for dcgan, whose scores are logits."""
    penalty: Tensor | None
    """λ not applied; None where the objective has none."""
    gradient_norm: Tensor | None
    """(1/B) Σ ‖∇f(x̂ᵢ)‖; None where no gradient is penalised."""
    real_score: Tensor
    fake_score: Tensor
    generator_loss: Tensor
    """Of the one generator step."""


class CriticLoop:
    """``n_critic`` critic steps and one generator step, by flat graphs, as one call.

    Algorithm 1 of Gulrajani et al., 2017 (arXiv 1704.00028) and of Arjovsky et al., 2017 (arXiv
    1701.07875); with ``objective="dcgan"`` the loop of Radford et al., 2016 (arXiv 1511.06434).
    ``stats = loop(reals)`` with ``reals`` of shape ``(n_critic, B, ...)`` draws z for all critic
    steps, α for all, then z for the generator's step; takes the fakes of all critic steps from one
    call of the generator where its samples do not see each other, else from one call per step; and
    updates both modules' parameters through their optimisers.

    Learning rates, λ (``loop.weight``) and c (``loop.clip_value``) can be changed between calls, as
    can training flags and the batch size: what is specialised to the former value is made anew.
    Modules' buffers are updated as in eager training.

    Args:
        generator: from z ``(B, *latent_shape)`` to samples.
        critic: from samples to one score each; a module.
        generator_optimizer: over the generator's parameters. ``torch.optim.Adam(..., fused=True)``
            is the fast one; on a GPU ``capturable=True`` as well.
        critic_optimizer: over the critic's; for ``"wgan"`` best :class:`wgan_fast.optim.RMSprop`
            with its own ``clip_value``: where a group of the optimiser has one, the loop itself
            clips nothing, and groups without one stay free.
        latent_shape: of one z, an integer or a tuple; z ~ N(0, 1).
        objective: ``"wgan-gp"``, ``"wgan"`` (weights clipped to ±``clip_value`` after each critic
            step) or ``"dcgan"`` (cross-entropy, non-saturating).
        n_critic: critic steps per generator step.
        penalty: a name or a :class:`Penalty`, as for :func:`wgan_fast.critic_loss`. Left out,
            wgan-gp has ``"gp"`` and dcgan none; wgan never has one.
        weight: λ; the penalty's own if left out.
        clip_value: c of wgan; None leaves the weights as they are, for a critic whose slope is
            bounded otherwise: by spectral normalisation, or by construction.
        regulariser: from the critic to a scalar that is added to its loss, such as
            :func:`wgan_fast.orthogonal_regularisation`; a function of the critic's tensors.
        mode: ``"captured"``: every step runs as a flat graph of ATen ops
            (:func:`wgan_fast.freeze`), and on a GPU the whole iteration as one CUDA graph;
            ``"compiled"``: these graphs are handed to Inductor first; ``"eager"``: no graphs;
            ``"auto"``: captured, and eager where that cannot be, with one line in the log. A mode
            that is named runs or raises.
        rng: generator of z and α, on the samples' device; PyTorch's default one if left out.
        backend: how the penalty gets its gradient, see :func:`wgan_fast.critic_loss`.

    Raises:
        TypeError, ValueError: an argument is not as described; a parameter has hooks, which a
            graph would not call.
        TraceError: from a call, in a mode that was named: see :func:`wgan_fast.freeze`.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        generator_optimizer: Optimizer,
        critic_optimizer: Optimizer,
        *,
        latent_shape: int | Sequence[int],
        objective: str = "wgan-gp",
        n_critic: int = 5,
        penalty: str | Penalty | None = None,
        weight: float | None = None,
        clip_value: float | None = 0.01,
        regulariser: Callable[[nn.Module], Tensor] | None = None,
        mode: str = "auto",
        rng: torch.Generator | None = None,
        backend: str = "auto",
    ) -> None:
        self.generator, self.critic = (
            check_module("generator", generator),
            check_module("critic", critic),
        )
        self.generator_optimizer = check_optimizer(
            "generator_optimizer", generator_optimizer, generator
        )
        self.critic_optimizer = check_optimizer("critic_optimizer", critic_optimizer, critic)
        self.latent_shape = check_shape(latent_shape)
        self.objective = check_choice("objective", objective, OBJECTIVES)
        if isinstance(n_critic, bool) or not isinstance(n_critic, int) or n_critic < 1:
            raise ValueError(f"n_critic: expected an integer of at least 1, got {n_critic!r}")
        self.n_critic = n_critic
        self._penalty = form = check_penalty_of(objective, penalty)
        own_weight = 0.0 if form is None else form.weight
        self.weight = check_number("weight", own_weight if weight is None else weight)
        self.clip_value = clip_value
        if clip_value is not None:
            check_number("clip_value", clip_value, positive=True)
        self.mode = check_choice("mode", mode, MODES)
        self.rng = rng
        check_choice("backend", backend, BACKENDS)
        if backend == "first_order" and mode in ("captured", "compiled"):
            raise ValueError(
                f'backend: "first_order" runs in mode="eager" alone, got mode={mode!r}'
            )

        saturating = objective != "dcgan"
        if form is None:
            step = plain_critic_step(critic, saturating)
        else:
            scores = "wasserstein" if saturating else "nonsaturating"
            step = penalised_critic_step(critic, loss_settings(form, objective=scores), backend)
        if regulariser is not None:
            step = regularised(step, critic, check_callable("regulariser", regulariser))
        self._critic_step = self._frozen(
            step,
            [critic],
            lambda: ["the critic's loss and scores", *trained(critic)],
            eager=backend == "first_order",
        )
        self._generator_step = self._frozen(
            generator_step(generator, critic, saturating),
            [generator, critic],
            lambda: ["the generator's loss", *trained(generator)],
        )
        self._sample = self._frozen(sampling(generator), [generator], lambda: ["the fakes"])
        self._signature = Signature([generator, critic])
        self._programs: dict[Any, CapturedIteration] = {}
        self._may_capture = mode != "eager"

    def _frozen(
        self,
        step: Step,
        owners: list[nn.Module],
        names: Callable[[], list[str]],
        eager: bool = False,
    ) -> FrozenFunction:
        how = "eager" if eager else self.mode
        return FrozenFunction(step, owners, names, how)

    def __call__(self, reals: Tensor) -> LoopStats:
        """One iteration on ``reals``, ``(n_critic, B, ...)``, a real batch for each critic step.

        Raises:
            TypeError, ValueError: ``reals`` is no such tensor, or on another device than the
                modules' parameters.
        """
        self._check(reals)
        reals = reals.detach()
        if self._may_capture and self._can_capture(reals.device):
            seen = self._replayed(reals)
        else:
            seen = self._iterate(reals, self._weight_for(reals))
        stats = LoopStats(*seen.unbind())
        if self._penalty is None:
            stats = stats._replace(penalty=None, gradient_norm=None)
        return stats._replace(wasserstein=None) if self.objective == "dcgan" else stats

    # -- the iteration --------------------------------------------------------------------------

    def _iterate(self, reals: Tensor, weight: Tensor) -> Tensor:
        """The iteration; [*STATISTICS, generator loss], means over the critic's steps."""
        z = self._draw(reals, torch.randn, (self.n_critic, reals.shape[1], *self.latent_shape))
        noise = None
        if self._penalty is not None and self._penalty.at == "dragan":
            noise = self._draw(reals, torch.rand, tuple(reals.shape))
        alpha = self._draw(reals, torch.rand, (self.n_critic, reals.shape[1]))
        (fakes,) = self._sample(z)
        assert fakes is not None
        if fakes.shape != reals.shape:
            raise ValueError(
                f"generator: expected samples shaped as the real ones, {tuple(reals.shape[2:])}, "
                f"got {tuple(fakes.shape[2:])}"
            )
        fakes = fakes.to(reals.dtype)  # autocast may have left them narrow
        total: Tensor | None = None
        critic_parameters = list(trained(self.critic).values())
        take_step: Function | None = None
        for step in range(self.n_critic):
            arguments = [reals[step], fakes[step]]
            if self._penalty is not None:
                drawn = alpha[step]
                if noise is not None:
                    drawn = around(reals[step], noise[step], drawn)
                arguments += [drawn, weight]
            if take_step is None:
                take_step = self._critic_step.prepared(*arguments)
            seen, *gradients = take_step(*arguments)
            assert seen is not None
            _update(self.critic_optimizer, critic_parameters, gradients)
            bound = self.clip_value if self.objective == "wgan" else None
            if bound is not None and not _clips(self.critic_optimizer):
                with torch.no_grad():
                    ops.clip_weights_(list(self.critic.parameters()), bound)
            total = seen if total is None else total + seen
        z = self._draw(reals, torch.randn, (reals.shape[1], *self.latent_shape))
        loss, *gradients = self._generator_step(z)
        assert loss is not None
        assert total is not None
        _update(self.generator_optimizer, trained(self.generator).values(), gradients)
        return torch.cat((total / self.n_critic, loss.reshape(1)))

    def _draw(self, like: Tensor, draw: Any, shape: tuple[int, ...]) -> Tensor:
        numbers: Tensor = draw(shape, generator=self.rng, device=like.device, dtype=like.dtype)
        return numbers

    def _weight_for(self, reals: Tensor) -> Tensor:
        kind = ops.accumulation_dtype(reals.dtype)
        return torch.full((), self.weight, dtype=kind, device=reals.device)

    # -- captured -------------------------------------------------------------------------------

    def _can_capture(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def _new_graph(self, device: torch.device) -> Graph:
        return CUDAGraph(device, [] if self.rng is None else [self.rng])

    def _replayed(self, reals: Tensor) -> Tensor:
        key = self._facts(reals)
        program = self._programs.get(key)
        if program is None:
            self._signature = Signature([self.generator, self.critic])
            key = self._facts(reals)
            if len(self._programs) >= _KEPT:
                self._programs.pop(next(iter(self._programs)))
            program = CapturedIteration(
                self._new_graph(reals.device), reals, self._weight_for(reals)
            )
            self._programs[key] = program
        try:
            return program(self._iterate, reals, self.weight)
        except RuntimeError as error:
            if self.mode != "auto" or not program.capturing:
                raise
            logger.warning("not captured in a CUDA graph, runs eagerly: %s", error)
            self._may_capture = False
            return self._iterate(reals, self._weight_for(reals))

    def _facts(self, reals: Tensor) -> tuple[Any, ...]:
        """What is written into a captured iteration: other facts, another capture."""
        hyperparameters = [
            value if not isinstance(value, Tensor) else id(value)
            for optimizer in (self.critic_optimizer, self.generator_optimizer)
            for group in optimizer.param_groups
            for name, value in group.items()
            if name != "params"
        ]
        return (*self._signature.now([reals]), *hyperparameters, self.clip_value, self.n_critic)

    # -- checks ---------------------------------------------------------------------------------

    def _check(self, reals: Any) -> None:
        check_samples("reals", reals)
        if reals.dim() < 3 or reals.shape[0] != self.n_critic:
            raise ValueError(
                f"reals: expected shape (n_critic, B, ...) with n_critic = {self.n_critic}, got "
                f"{tuple(reals.shape)}; torch.stack the batches of an iteration"
            )
        there = next(iter(trained(self.critic).values())).device
        if reals.device != there:
            raise ValueError(
                f"reals: expected them on the critic's device, {there}, got {describe(reals)}"
            )


def _update(
    optimizer: Optimizer, parameters: Iterable[nn.Parameter], gradients: Sequence[Tensor | None]
) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    # Autocast keeps narrow copies of weights until its context ends; the whole loop may lie in one.
    torch.clear_autocast_cache()


def _clips(optimizer: Optimizer) -> bool:
    return any(group.get("clip_value") is not None for group in optimizer.param_groups)
