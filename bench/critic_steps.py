"""The claims: a critic's step is faster than the textbook's, by how much, and in less memory.

All sides end with the gradients of every parameter, taken by ``backward`` as in a training loop;
the optimiser's step, which is the same on all, is left out. The textbook is wgan_fast.reference, on
contiguous tensors, as its users have it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

import wgan_fast
from bench.critics import CRITICS, DCGANS, MLPS, RESNETS, Critic, Problem
from bench.harness.case import Case, Figure
from bench.harness.guards import runs_compiled
from bench.peers import inductor
from bench.peers.conv2d_gradfix import gradfix_
from wgan_fast import reference

Loss = Callable[[Problem], Tensor]
Work = Callable[[Any], Any]

# Another order of sums takes one activation across its kink, and a small bias's gradient a
# thousandth off; in float64 all sides agree to the last digits (tests/bench/test_critics.py).
_TOLERANCE = 5e-3
_NEVER_SLOWER = 0.98
_LEAN, _LEAN_IN_CHUNKS = 0.85, 0.3  # peak memory over the reference's, on the DCGAN critics
_CHUNKS = 4
_FROZEN, _COMPILED = "wgan_fast, frozen", "wgan_fast, frozen + compiled"
_CHANNELS_LAST, _IN_CHUNKS = "wgan_fast, channels_last", f"wgan_fast, {_CHUNKS} chunks"
_INDUCTOR, _GRADFIX = "make_fx + Inductor", "conv2d_gradfix"
# Compiling a ResNet's step takes most of a minute, so that one of the three must do.
_NOT_COMPILED = ("resnet-instance", "resnet-group")

# The least speed-up by critic; every other critic's is _NEVER_SLOWER.
_OF_CRITIC_LOSS = {
    "toy-mlp": 1.6,
    "tabular-mlp": 1.35,
    "mlp-784": 1.35,
    "dcgan-32": 1.4,
    "dcgan-64": 1.2,
    **{critic.name: 1.15 for critic in RESNETS},
}
_OF_CHANNELS_LAST = {"dcgan-32": 1.6, "dcgan-64": 1.3}
_OF_GRADIENT_PENALTY = {critic.name: 1.5 for critic in DCGANS}
_OF_R1, _OF_R1_AND_R2 = 1.25, 1.4


def with_gradients(loss: Loss) -> Callable[[Problem], list[Tensor | None]]:
    """The work of one step: the loss, its backward, and the parameters' gradients taken away."""

    def work(problem: Problem) -> list[Tensor | None]:
        value = loss(problem)
        value.backward()
        gradients = [parameter.grad for parameter in problem.critic.parameters()]
        problem.critic.zero_grad(set_to_none=True)
        return [value.detach(), *gradients]

    return work


def channels_last(problem: Problem) -> Problem:
    """Critic and images in the memory format that suits their convolutions."""
    there = torch.channels_last
    real, fake = (x.contiguous(memory_format=there) for x in (problem.real, problem.fake))
    return Problem(problem.critic.to(memory_format=there), real, fake, problem.alpha)


def _textbook_critic_loss(p: Problem) -> Tensor:
    return reference.critic_loss(p.critic, p.real, p.fake, p.alpha, weight=10.0)


def _critic_loss(p: Problem) -> Tensor:
    return wgan_fast.critic_loss(p.critic, p.real, p.fake, alpha=p.alpha, weight=10.0)


def _critic_loss_in_chunks(p: Problem) -> Tensor:
    size = len(p.real) // _CHUNKS
    return wgan_fast.critic_loss(
        p.critic, p.real, p.fake, alpha=p.alpha, weight=10.0, chunk_size=size
    )


class CriticWithStep(NamedTuple):
    """A problem and its frozen step, past autograd, as the compiled peer's."""

    step: wgan_fast.FrozenStep
    problem: Problem

    def run(self) -> list[Tensor | None]:
        """The loss and the gradient of every parameter."""
        p = self.problem
        loss, gradients = self.step.value_and_grad(p.real, p.fake, p.alpha)
        return [loss, *gradients.values()]


def frozen(compile: bool) -> Callable[[Problem], CriticWithStep]:
    """What freezes a problem's step."""

    def prepare(problem: Problem) -> CriticWithStep:
        step = wgan_fast.freeze(problem.critic, problem.real, weight=10.0, compile=compile)
        return CriticWithStep(step, problem)

    return prepare


def _case(
    claim: str,
    critic: Critic,
    sides: Mapping[str, Work],
    at_least: float,
    *more_figures: Figure,
    operators: tuple[str, ...] = ("interpolate", "gradient_norm_penalty"),
    **more: Any,
) -> Case:
    lean = (Figure("wgan_fast", "memory", _LEAN),) if critic in DCGANS else ()
    return Case(
        name=f"{claim}/{critic.name}",
        sizes=critic.sizes,
        problem=critic.problem,
        sides=sides,
        forward=lambda problem: problem.critic(problem.real),
        figures=(Figure("wgan_fast", "speed-up", at_least), *lean, *more_figures),
        requires=(runs_compiled(*operators),),
        must_call={"wgan_fast": tuple(f"wgan_fast::{operator}" for operator in operators)},
        tolerance=_TOLERANCE,
        **more,
    )


def _critic_loss_case(critic: Critic) -> Case:
    step = with_gradients(_critic_loss)
    sides: dict[str, Work] = {
        "reference": with_gradients(_textbook_critic_loss),
        "wgan_fast": step,
    }
    prepare: dict[str, Callable[[Problem], Any]] = {}
    figures: list[Figure] = []
    if critic in DCGANS:
        sides |= {_CHANNELS_LAST: step, _IN_CHUNKS: with_gradients(_critic_loss_in_chunks)}
        prepare[_CHANNELS_LAST] = channels_last
        figures = [
            Figure(_CHANNELS_LAST, "speed-up", _OF_CHANNELS_LAST[critic.name]),
            Figure(_IN_CHUNKS, "speed-up", 1.0),
            Figure(_IN_CHUNKS, "memory", _LEAN_IN_CHUNKS),
        ]

    sides[_FROZEN] = CriticWithStep.run
    prepare[_FROZEN] = frozen(compile=False)
    if critic in (*MLPS, *DCGANS):
        sides[_COMPILED] = CriticWithStep.run
        prepare[_COMPILED] = frozen(compile=True)
        at_least = 1.5 if critic.name == "toy-mlp" else 1.15
        figures.append(Figure(_COMPILED, "speed-up", at_least, against=(_INDUCTOR,)))
    peers = []
    if critic.name not in _NOT_COMPILED:
        peers.append(_INDUCTOR)
        sides[_INDUCTOR] = inductor.CompiledProblem.run
        prepare[_INDUCTOR] = inductor.compiled(_textbook_critic_loss)
    if len(critic.sample_shape) == 3:
        peers.append(_GRADFIX)
        sides[_GRADFIX] = with_gradients(_textbook_critic_loss)
        prepare[_GRADFIX] = lambda problem: problem._replace(critic=gradfix_(problem.critic))
    return _case(
        "critic_loss",
        critic,
        sides,
        _OF_CRITIC_LOSS.get(critic.name, _NEVER_SLOWER),
        *figures,
        # Curved and large: called apart from the second step on.
        operators=("interpolate" if critic in RESNETS else "merged_batch", "gradient_norm_penalty"),
        prepare=prepare,
        peers=tuple(peers),
        compiled=tuple(side for side in (_COMPILED, _INDUCTOR) if side in sides),
    )


def _gradient_penalty_case(critic: Critic) -> Case:
    losses: dict[str, Loss] = {
        "reference": lambda p: reference.gradient_penalty(p.critic, p.real, p.fake, p.alpha),
        "wgan_fast": lambda p: wgan_fast.gradient_penalty(p.critic, p.real, p.fake, alpha=p.alpha),
    }
    return _case(
        "gradient_penalty",
        critic,
        {side: with_gradients(loss) for side, loss in losses.items()},
        _OF_GRADIENT_PENALTY.get(critic.name, _NEVER_SLOWER),
    )


def _case_at_samples(claim: str, at: str, critic: Critic, at_least: float) -> Case:
    losses: dict[str, Loss] = {
        "reference": lambda p: reference.critic_loss_at_samples(
            p.critic, p.real, p.fake, at, weight=5.0, target=0.0
        ),
        "wgan_fast": lambda p: wgan_fast.critic_loss(
            p.critic, p.real, p.fake, at=at, weight=5.0, target=0.0
        ),
    }
    return _case(
        claim,
        critic,
        {side: with_gradients(loss) for side, loss in losses.items()},
        at_least,
        operators=("gradient_norm_penalty",),
    )


CASES = (
    *(_critic_loss_case(critic) for critic in CRITICS),
    *(_gradient_penalty_case(critic) for critic in CRITICS),
    *(_case_at_samples("R1", "real", critic, _OF_R1) for critic in DCGANS),
    *(_case_at_samples("R1+R2", "both", critic, _OF_R1_AND_R2) for critic in DCGANS),
)
