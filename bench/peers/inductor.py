"""The textbook's step as one graph, double backward included, compiled by Inductor.

``torch.compile`` refuses a double backward. ``make_fx`` does not: it writes down every operator
that loss and gradients dispatch, with the parameters as inputs, and what comes out is a flat graph
without any autograd in it, which Inductor takes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from bench.critics import Problem

Loss = Callable[[Problem], Tensor]


class CompiledProblem(NamedTuple):
    """A compiled step, and what it takes."""

    step: Callable[..., Any]
    parameters: list[Tensor]
    real: Tensor
    fake: Tensor
    alpha: Tensor

    def run(self) -> list[Tensor]:
        """The loss and the gradient of every parameter."""
        with torch.no_grad():
            return list(self.step(self.parameters, self.real, self.fake, self.alpha))


def _inputs(problem: Problem) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    parameters = [parameter.detach() for parameter in problem.critic.parameters()]
    return parameters, problem.real, problem.fake, problem.alpha


def traced(loss: Loss, problem: Problem) -> GraphModule:
    """The graph from (parameters, real, fake, alpha) to the loss and every parameter's gradient."""
    names = [name for name, _ in problem.critic.named_parameters()]
    if any(True for _ in problem.critic.buffers()):
        raise NotImplementedError("make_fx: a buffer would become a constant of the graph")

    def step(parameters: list[Tensor], real: Tensor, fake: Tensor, alpha: Tensor) -> list[Tensor]:
        leaves = [parameter.detach().requires_grad_() for parameter in parameters]
        by_name = dict(zip(names, leaves, strict=True))

        def critic(x: Tensor) -> Tensor:
            return functional_call(problem.critic, by_name, (x,))

        value = loss(Problem(critic, real, fake, alpha))
        return [value.detach(), *torch.autograd.grad(value, leaves)]

    return make_fx(step)(*_inputs(problem))


def compiled(loss: Loss) -> Callable[[Problem], CompiledProblem]:
    """From a problem to its step, compiled; once per device, however many problems there are.

    All of them must be of one critic and one batch size.
    """
    steps: dict[torch.device, Callable[..., Any]] = {}

    def prepare(problem: Problem) -> CompiledProblem:
        inputs = _inputs(problem)
        device = problem.real.device
        if device not in steps:
            from torch._inductor import compile  # seconds, which only those who compile should pay

            step = compile(traced(loss, problem), list(inputs))
            with torch.no_grad():
                step(*inputs)  # what is left to the first call is compiled here, too
            steps[device] = step
        return CompiledProblem(steps[device], *inputs)

    return prepare
