"""The penalty of a training loop: which of its critic steps have it, and with which λ."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast import ops
from wgan_fast.adaptive_weight import AdaptiveWeight
from wgan_fast.arguments import check_number, describe
from wgan_fast.loop_arguments import check_count
from wgan_fast.penalties import Penalty
from wgan_fast.penalty_points import around
from wgan_fast.steps import STATISTICS, trained

_NORM = STATISTICS.index("gradient_norm")


class LoopPenalty:
    """What :class:`wgan_fast.CriticLoop` knows of its penalty; a loop without one has this, too.

    Args:
        form: the penalty; None for none.
        weight: λ, a number or an :class:`AdaptiveWeight`; the penalty's own if None.
        every: lazy regularisation: every so-manieth critic step alone has the penalty, beginning
            with the first, times so many.
        critic: where an adaptive λ has to lie.

    Raises:
        TypeError, ValueError: an argument is not as described, or there is no penalty for it.
    """

    def __init__(self, form: Penalty | None, weight: Any, every: Any, critic: nn.Module) -> None:
        self.form = form
        self.every = check_count("every", every)
        if form is None and self.every != 1:
            raise ValueError(f"every: expected 1 where there is no penalty, got {self.every}")
        self._critic = critic
        self._steps = 0
        self._weight: float | AdaptiveWeight
        self.weight = (0.0 if form is None else form.weight) if weight is None else weight

    @property
    def weight(self) -> float | AdaptiveWeight:
        """λ."""
        return self._weight

    @weight.setter
    def weight(self, weight: float | AdaptiveWeight) -> None:
        if not isinstance(weight, AdaptiveWeight):
            self._weight = check_number("weight", weight)
            return
        if self.form is None:
            raise ValueError("weight: expected a number where there is no penalty to adapt it to")
        parameter = next(iter(trained(self._critic).values()))
        self._weight = weight.to(parameter.device)

    @property
    def adaptive(self) -> AdaptiveWeight | None:
        """λ, if it is an adaptive one."""
        return self._weight if isinstance(self._weight, AdaptiveWeight) else None

    # -- which steps ------------------------------------------------------------------------------

    def kinds_of_step(self) -> tuple[bool, ...]:
        """The values that ``due`` has at all: a loop has a step for each."""
        if self.form is None:
            return (False,)
        return (True,) if self.every == 1 else (True, False)

    def due(self, count: int) -> tuple[bool, ...]:
        """Of each of the ``count`` next steps, whether it has the penalty."""
        return self._due(self._steps, count)

    def patterns(self, count: int) -> int:
        """How many different answers ``due`` has."""
        return len({self._due(first, count) for first in range(self.every)})

    def advance(self, count: int) -> None:
        """So many steps have been taken."""
        self._steps += count

    def _due(self, first: int, count: int) -> tuple[bool, ...]:
        steps = range(first, first + count)
        return tuple(self.form is not None and step % self.every == 0 for step in steps)

    # -- λ and the points -------------------------------------------------------------------------

    def constant(self) -> float | None:
        """λ as a number; None if it is adaptive, and never an input."""
        return self._weight if isinstance(self._weight, float) else None

    def current(self, reals: Tensor, constant: Tensor | None = None) -> Tensor:
        """λ at this moment, 0-dim; of an adaptive one a copy, which later updates leave alone."""
        kind = ops.accumulation_dtype(reals.dtype)
        if isinstance(self._weight, AdaptiveWeight):
            return self._weight.weight.to(kind, copy=True)
        if constant is not None:
            return constant
        return torch.full((), self._weight, dtype=kind, device=reals.device)

    def measured(self, statistics: Tensor) -> None:
        """An adaptive λ takes its step by what a penalised critic step saw."""
        if isinstance(self._weight, AdaptiveWeight):
            self._weight.update(statistics[_NORM])

    @property
    def takes_noise(self) -> bool:
        """Whether its points are made with noise, one number per element."""
        return self.form is not None and self.form.at == "dragan"

    def arguments(
        self, real: Tensor, noise: Tensor | None, alpha: Tensor, weight: Tensor
    ) -> list[Tensor]:
        """What a penalised step takes besides the samples."""
        drawn = alpha if noise is None else around(real, noise, alpha)
        return [drawn, weight if self.every == 1 else weight * self.every]

    def facts(self) -> tuple[Any, ...]:
        """What is written into a captured iteration: other facts, another capture."""
        if isinstance(self._weight, AdaptiveWeight):
            rule = self._weight.target, self._weight.rate, self._weight.limits
            return (self.every, id(self._weight.weight), *rule)
        return (self.every,)

    # -- for a checkpoint -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """λ and how many steps have been taken."""
        weight = self._weight
        if isinstance(weight, AdaptiveWeight):
            return {"critic_steps": self._steps, "adaptive_weight": weight.weight.clone()}
        return {"critic_steps": self._steps, "weight": weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As they were saved; an adaptive λ is written where it lies.

        Raises:
            ValueError: they are those of a loop with another kind of λ.
        """
        own = self.state_dict()
        if not isinstance(state, Mapping) or state.keys() != own.keys():
            came = sorted(state) if isinstance(state, Mapping) else describe(state)
            raise ValueError(f"state: expected a dict of {sorted(own)}, got {came}")
        self._steps = check_count("critic_steps", state["critic_steps"], least=0)
        if isinstance(self._weight, AdaptiveWeight):
            self._weight.weight.copy_(state["adaptive_weight"])
        else:
            self.weight = state["weight"]
