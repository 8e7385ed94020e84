"""The steps of a training loop's iteration, each frozen as the loop's mode says."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from wgan_fast.critic_objective import loss_settings
from wgan_fast.frozen_function import FrozenFunction
from wgan_fast.loop_inputs import LoopInputs
from wgan_fast.loop_penalty import LoopPenalty
from wgan_fast.sample_forms import Form
from wgan_fast.side_by_side import Apart
from wgan_fast.steps import (
    calling,
    critic_apart,
    generator_apart,
    generator_step,
    penalised_critic_step,
    plain_critic_step,
    regularised,
    sampling,
    sampling_apart,
    trained,
)

# As many kinds as a frozen function has graphs.
_KEPT = 8


class LoopSteps(NamedTuple):
    """What an iteration calls; what comes with a batch is last in each one's arguments."""

    critic: dict[bool, FrozenFunction]
    """``step(real, fake, *more)`` without a penalty, ``step(real, fake, drawn, λ, *more)`` with
    one: those of the two that the loop has at all. More are conditions, and a mask."""
    generator: FrozenFunction
    """``step(z, *cond)``"""
    sample: FrozenFunction
    """``step(z, *cond)`` for the z of all critic steps, one after the other."""


def loop_steps(
    generator: nn.Module,
    critic: nn.Module,
    penalty: LoopPenalty,
    form: Form,
    masked: bool,
    steps: int,
    *,
    saturating: bool,
    drift: float,
    regulariser: Callable[[nn.Module], Tensor] | None,
    mode: str,
    backend: str,
    select: Any,
    separate: bool,
) -> LoopSteps:
    """The steps for a loop's settings, which are checked already; not ``saturating`` is DCGAN's.

    They are for ``steps`` of the critic on samples in one ``form``, ``masked`` or not.
    """
    called = calling(critic, form, select, separate, masked)
    of_critic: dict[bool, FrozenFunction] = {}
    for penalised in penalty.kinds_of_step():
        step = plain_critic_step(critic, saturating, drift, called)
        apart: Apart | None = critic_apart(critic, called, first=4 if penalised else 2)
        if penalised:
            assert penalty.form is not None
            scores = "wasserstein" if saturating else "nonsaturating"
            settings = loss_settings(penalty.form, objective=scores, drift=drift)
            step = penalised_critic_step(critic, settings, backend, called)
            apart = apart if settings.averages else None
        if regulariser is not None:
            # Each part would have one of its own to compute.
            step, apart = regularised(step, critic, regulariser), None
        of_critic[penalised] = FrozenFunction(
            step,
            [critic],
            lambda: ["the critic's loss and scores", *trained(critic)],
            "eager" if penalised and backend == "first_order" else mode,
            apart,
        )
    plain = select is None and form.single and form.pac == 1
    of_generator = FrozenFunction(
        generator_step(generator, critic, saturating, select, form.pac),
        [generator, critic],
        lambda: ["the generator's loss", *trained(generator)],
        mode,
        generator_apart(generator, critic) if plain else None,
    )
    sample = FrozenFunction(
        sampling(generator, form, steps),
        [generator],
        lambda: ["the fakes"],
        mode,
        sampling_apart(generator, steps) if plain else None,
        rows=(0,),
    )
    return LoopSteps(of_critic, of_generator, sample)


class StepsByKind:
    """The steps of a loop for each kind of inputs: forms of samples, masked or not.

    Args:
        make: from a form, whether there is a mask, and how many critic's steps, to the steps.
    """

    def __init__(self, make: Callable[[Form, bool, int], LoopSteps]) -> None:
        self._make = make
        self.made: dict[Any, LoopSteps] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its own, of its own modules."""
        return vars(self) | {"made": {}}

    def of(self, inputs: LoopInputs) -> LoopSteps:
        """Those for such inputs."""
        kind = inputs.kind
        if kind not in self.made:
            if len(self.made) >= _KEPT:
                self.made.pop(next(iter(self.made)))
            self.made[kind] = self._make(inputs.form, bool(inputs.mask), len(inputs.reals))
        return self.made[kind]
