"""The claim: ``critic_loss`` and ``gradient_penalty`` cost no more than the textbook, in any way.

Both sides end with the gradients of every parameter, taken by ``backward`` as in a training loop;
the optimiser's step, which is the same on both, is left out. The textbook is wgan_fast.reference.
"""

from collections.abc import Callable

from torch import Tensor

import wgan_fast
from bench.critics import CRITICS, Critic, Problem
from bench.harness.case import Case, Figure
from bench.harness.guards import runs_compiled
from wgan_fast import reference

Loss = Callable[[Problem], Tensor]

_CRITIC_LOSS: dict[str, Loss] = {
    "reference": lambda p: reference.critic_loss(p.critic, p.real, p.fake, p.alpha, weight=10.0),
    "wgan_fast": lambda p: wgan_fast.critic_loss(
        p.critic, p.real, p.fake, alpha=p.alpha, weight=10.0
    ),
}
_GRADIENT_PENALTY: dict[str, Loss] = {
    "reference": lambda p: reference.gradient_penalty(p.critic, p.real, p.fake, p.alpha),
    "wgan_fast": lambda p: wgan_fast.gradient_penalty(p.critic, p.real, p.fake, alpha=p.alpha),
}


def with_gradients(loss: Loss) -> Callable[[Problem], list[Tensor | None]]:
    """The work of one step: the loss, its backward, and the parameters' gradients taken away."""

    def work(problem: Problem) -> list[Tensor | None]:
        value = loss(problem)
        value.backward()
        gradients = [parameter.grad for parameter in problem.critic.parameters()]
        problem.critic.zero_grad(set_to_none=True)
        return [value.detach(), *gradients]

    return work


def _case(claim: str, critic: Critic, losses: dict[str, Loss]) -> Case:
    return Case(
        name=f"{claim}/{critic.name}",
        sizes=critic.sizes,
        problem=critic.problem,
        sides={side: with_gradients(loss) for side, loss in losses.items()},
        figures=(Figure("wgan_fast", "speed-up", 0.98),),
        requires=(runs_compiled("interpolate", "gradient_norm_penalty"),),
        must_call={"wgan_fast": ("wgan_fast::interpolate", "wgan_fast::gradient_norm_penalty")},
        tolerance=1e-3,
    )


CASES = (
    *(_case("critic_loss", critic, _CRITIC_LOSS) for critic in CRITICS),
    *(_case("gradient_penalty", critic, _GRADIENT_PENALTY) for critic in CRITICS),
)
