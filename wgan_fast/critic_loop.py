"""``CriticLoop``: a whole training iteration of a WGAN as one object."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wgan_fast import ops
from wgan_fast.adaptive_weight import AdaptiveWeight, with_adaptive
from wgan_fast.arguments import check_choice, check_number
from wgan_fast.captured_iteration import CapturedIteration, CapturedIterations
from wgan_fast.critic_shapes import INPUTS
from wgan_fast.cuda_graph import CUDAGraph, Graph
from wgan_fast.frozen_function import MODES, Function
from wgan_fast.loop_arguments import (
    check_backend,
    check_callable,
    check_count,
    check_module,
    check_optimizer,
    check_penalised,
    check_penalty_of,
    check_reals,
    check_shape,
)
from wgan_fast.loop_clipping import CLIP_VALUE, bound_of, check_clip_value, clip_
from wgan_fast.loop_inputs import LoopInputs, loop_inputs
from wgan_fast.loop_penalty import LoopPenalty
from wgan_fast.loop_stats import LoopStats, stats_of
from wgan_fast.loop_steps import StepsByKind, loop_steps
from wgan_fast.loop_updates import Updates, hyperparameters
from wgan_fast.penalties import Penalty

logger = logging.getLogger("wgan_fast")

OBJECTIVES = ("wgan-gp", "wgan", "dcgan")
_KEPT = 4


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
    Modules' buffers are updated as in eager training. ``state_dict`` has what the loop itself knows
    of the past: with the states of the modules, the optimisers and ``rng``, training goes on from
    it as if it had not stopped.

    Args:
        generator: from z ``(B, *latent_shape)`` to samples, in the structure of the real ones; with
            conditions, where a call has any.
        critic: from samples, with the same conditions, to one score or one map of scores each; or
            as ``select`` and ``pac`` say. A module. Samples of several tensors come to it as they
            are given, as one tuple, list or dict.
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
            wgan-gp has ``"gp"`` and dcgan none; wgan never has one. ``"adaptive"`` is ``"gp"`` with
            ``weight=AdaptiveWeight()``.
        weight: λ, or an :class:`AdaptiveWeight`, which is moved to the critic's device and takes a
            step after each critic step with a penalty; the penalty's own if left out.
        every: lazy regularisation: every so-manieth critic step alone has the penalty, beginning
            with the loop's first, times so many (Karras et al., 2020, arXiv 1912.04958). The
            statistics of the penalty are of such steps alone.
        drift: factor of E f(real)² in the critic's loss (Karras et al., 2018, arXiv 1710.10196).
        clip_value: c of wgan, 0.01 if left out; None leaves the weights as they are, for a critic
            whose slope is bounded otherwise: by spectral normalisation, or by construction. Where
            the optimiser has its own, another one given here, or set later, is an error.
        regulariser: from the critic to a scalar that is added to its loss, such as
            :func:`wgan_fast.orthogonal_regularisation`; a function of the critic's tensors.
        mode: ``"captured"``: every step runs as a flat graph of ATen ops
            (:func:`wgan_fast.freeze`), and on a GPU the whole iteration as one CUDA graph;
            ``"compiled"``: these graphs are handed to Inductor first; ``"eager"``: no graphs;
            ``"auto"``: captured, and eager where that cannot be, with one line in the log. A mode
            that is named runs or raises.
        rng: generator of z and α, on the samples' device; PyTorch's default one if left out.
        backend: how the penalty gets its gradient, see :func:`wgan_fast.critic_loss`.
        select: which part of the critic's output is the score, as for
            :func:`wgan_fast.critic_loss`; ``list`` for the scores of several scales, whose losses
            are added up in both modules' steps.
        pac: samples to a pack, of which the critic makes one score: B samples in, B/pac scores
            out, in both modules' steps.
        inputs: for samples of several tensors, ``"joint"``: one norm over all their gradients, or
            ``"separate"``: a penalty for each one's gradient, added up.

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
        weight: float | AdaptiveWeight | None = None,
        every: int = 1,
        drift: float = 0.0,
        clip_value: float | None = CLIP_VALUE,
        regulariser: Callable[[nn.Module], Tensor] | None = None,
        mode: str = "auto",
        rng: torch.Generator | None = None,
        backend: str = "auto",
        select: Any = None,
        pac: int = 1,
        inputs: str = "joint",
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
        self.n_critic = check_count("n_critic", n_critic)
        penalty, weight = with_adaptive(penalty, weight)
        form = check_penalty_of(objective, penalty)
        self._penalty = LoopPenalty(form, weight, every, critic)
        check_number("drift", drift)
        self.clip_value = clip_value
        self.mode = check_choice("mode", mode, MODES)
        self.rng = rng
        check_backend(backend, mode)
        self._pac = check_count("pac", pac)
        self._separate = check_choice("inputs", inputs, INPUTS) == "separate"
        if regulariser is not None:
            check_callable("regulariser", regulariser)
        self._steps = StepsByKind(
            partial(
                loop_steps, generator, critic, self._penalty, saturating=objective != "dcgan",
                drift=drift, regulariser=regulariser, mode=mode, backend=backend, select=select,
                separate=self._separate,
            )
        )  # fmt: skip
        self._critic_updates, self._generator_updates = Updates(critic), Updates(generator)
        self._captured = CapturedIterations([generator, critic])
        self._may_capture = mode != "eager"

    @property
    def weight(self) -> float | AdaptiveWeight:
        """λ."""
        return self._penalty.weight

    @weight.setter
    def weight(self, weight: float | AdaptiveWeight) -> None:
        self._penalty.weight = weight

    @property
    def clip_value(self) -> float | None:
        """c; where the optimiser clips in its own step, the largest of its bounds."""
        return bound_of(self._clip_value, self.critic_optimizer)

    @clip_value.setter
    def clip_value(self, clip_value: float | None) -> None:
        self._clip_value = check_clip_value(clip_value, self.critic_optimizer)

    def state_dict(self) -> dict[str, Any]:
        """λ, and how many critic steps have been taken, which ``every`` counts."""
        return self._penalty.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As ``state_dict`` had them.

        Raises:
            ValueError: they are those of a loop with another kind of λ.
        """
        self._penalty.load_state_dict(state)

    def __call__(
        self, reals: Any, cond: Any = None, generator_cond: Any = None, *, mask: Any = None
    ) -> LoopStats:
        """One iteration on ``reals``, ``(n_critic, B, ...)``, a real batch for each critic step.

        Args:
            reals: the real samples; or a tuple, list or dict of tensors of one dtype, each
                ``(n_critic, B, ...)``.
            cond: for a conditional pair ``generator(z, *cond)`` and ``critic(x, *cond)``: what they
                are called with besides, such as the labels of ``reals``; a tensor of shape
                ``(n_critic, B, ...)`` and any dtype, or a tuple of them. Fakes are made for the
                same conditions as the real samples that they stand against.
            generator_cond: the conditions of the fakes in the generator's own step, ``(B, ...)``
                each; those of the last critic step if left out.
            mask: what the penalty's gradient is multiplied by before its norm is taken, numbers or
                bools; broadcasts to ``reals``, ``(n_critic, B, 1, H, W)`` say, or ``(1, 1, H, W)``
                for all samples of all steps. One for each tensor, where there are several.

        Raises:
            TypeError, ValueError: a tensor is not as described, on another device than the
                modules' parameters, or a condition that requires gradients; B is no multiple of
                ``pac``; there is a mask or ``inputs="separate"`` and no penalty; the generator's
                samples are not like the real ones.
        """
        check_reals(reals, self.n_critic, self.critic)
        check_penalised(self._penalty.form, mask, self._separate, reals)
        inputs = loop_inputs(reals, cond, generator_cond, mask, self._pac)
        due = self._penalty.due(self.n_critic)
        if self._may_capture and self._can_capture(inputs.reals.device):
            seen = self._replayed(inputs, due)
        else:
            seen = self._iterate(inputs, self._penalty.current(inputs.reals), due)
        self._penalty.advance(self.n_critic)
        return stats_of(seen, due, self.objective)

    # -- the iteration --------------------------------------------------------------------------

    def _iterate(self, inputs: LoopInputs, constant: Tensor, due: tuple[bool, ...]) -> Tensor:
        """The iteration; [*STATISTICS, generator loss, adaptive λ], means over the critic's steps.

        ``constant`` is λ if it is not adaptive; ``due`` says which steps are penalised.
        """
        reals, steps = inputs.reals, self._steps.of(inputs)
        wide = ops.accumulation_dtype(reals.dtype)
        for updates in (self._critic_updates, self._generator_updates):
            updates.begin()
        z = self._draw(reals, torch.randn, (self.n_critic * inputs.batch, *self.latent_shape))
        noise = None
        if self._penalty.takes_noise:
            noise = self._draw(reals, torch.rand, tuple(reals.shape), wide)
        alpha = self._draw(reals, torch.rand, tuple(reals.shape[:2]), wide)
        (fakes,) = steps.sample(z, *(one.flatten(0, 1) for one in inputs.cond))
        assert fakes is not None
        # Autocast may have left them narrow.
        fakes = fakes.to(reals.dtype)
        seen: list[Tensor] = []
        take_step: dict[bool, Function] = {}
        weights: list[Tensor] = []
        each = zip(due, reals, fakes.chunk(self.n_critic), alpha, strict=True)
        for step, (penalised, real, fake, drawn) in enumerate(each):
            weights.append(self._penalty.current(reals, constant))
            arguments = [real, fake]
            if penalised:
                of_noise = None if noise is None else noise[step]
                arguments += self._penalty.arguments(real, of_noise, drawn, weights[-1])
            arguments += inputs.of_step(step)
            if penalised not in take_step:
                take_step[penalised] = steps.critic[penalised].prepared(*arguments)
            of_step, *_ = self._critic_updates.take(
                self.critic_optimizer, take_step[penalised], *arguments
            )
            assert of_step is not None
            if penalised:
                self._penalty.measured(of_step)
            seen.append(of_step)
            if self.objective == "wgan":
                clip_(self.critic, self._clip_value, self.critic_optimizer)
        z = self._draw(reals, torch.randn, (inputs.batch, *self.latent_shape))
        step_arguments = z, *inputs.generator_cond
        loss, *_ = self._generator_updates.take(
            self.generator_optimizer, steps.generator.prepared(*step_arguments), *step_arguments
        )
        assert loss is not None
        parts = [torch.stack(seen).mean(0), loss.reshape(1)]
        if self._penalty.adaptive is not None:
            parts.append(torch.stack(weights).mean().reshape(1).to(parts[0].dtype))
        return torch.cat(parts)

    def _draw(
        self, like: Tensor, draw: Any, shape: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> Tensor:
        numbers: Tensor = draw(
            shape, generator=self.rng, device=like.device, dtype=dtype or like.dtype
        )
        return numbers

    # -- captured -------------------------------------------------------------------------------

    def _can_capture(self, device: torch.device) -> bool:
        return device.type == "cuda"

    def _new_graph(self, device: torch.device) -> Graph:
        return CUDAGraph(device, [] if self.rng is None else [self.rng])

    def _replayed(self, inputs: LoopInputs, due: tuple[bool, ...]) -> Tensor:
        def weight() -> Tensor:
            return self._penalty.current(inputs.reals)

        def new() -> CapturedIteration:
            return CapturedIteration(self._new_graph(inputs.reals.device), inputs.tensors, weight())

        def iterate(tensors: Sequence[Tensor], weight: Tensor) -> Tensor:
            return self._iterate(inputs.on(tensors), weight, due)

        kept = _KEPT * self._penalty.patterns(self.n_critic)
        program = self._captured.of(self._facts(inputs, due), inputs.tensors, new, kept)
        try:
            return program(iterate, inputs.tensors, self._penalty.constant())
        except RuntimeError as error:
            if self.mode != "auto" or not program.capturing:
                raise
            logger.warning("not captured in a CUDA graph, runs eagerly: %s", error)
            self._may_capture = False
            return self._iterate(inputs, weight(), due)

    def _facts(self, inputs: LoopInputs, due: tuple[bool, ...]) -> tuple[Any, ...]:
        """What is written into a captured iteration: other facts, another capture."""
        of_steps = hyperparameters(self.critic_optimizer, self.generator_optimizer)
        of_loop = self.clip_value, self.n_critic, due, *self._penalty.facts()
        return (*inputs.kind, len(inputs.cond), *of_steps, *of_loop)
