"""The claim: a normalisation's second order costs less than autograd's double backward of it.

Given what a forward and a first backward leave, both sides give what a double backward gives: the
derivatives of ⟨∂⟨Δ, y⟩/∂x, t⟩ in Δ, x and γ. They are what the explicit engine asks of a
normalisation between its tangent pass and its last one.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness.case import Case, Figure
from bench.harness.guards import runs_compiled

_SHAPE = (32, 32, 32, 32)  # of a ResNet critic's activations
_GROUPS = 8
_FLOAT32 = 4


class Problem(NamedTuple):
    """Input, scale, shift, cotangent of the output, tangent of the input."""

    x: Tensor
    gamma: Tensor
    beta: Tensor
    delta: Tensor
    tangent: Tensor


class Kind(NamedTuple):
    """A normalisation: its call, its statistics, and how the operators see it in rows."""

    name: str
    parameter_shape: tuple[int, ...]
    call: Callable[[Problem], Tensor]
    groups: int
    columns: int
    repeat: int


def _problem(kind: Kind, device: torch.device) -> Problem:
    generator = torch.Generator().manual_seed(0)
    shapes = (_SHAPE, kind.parameter_shape, kind.parameter_shape, _SHAPE, _SHAPE)
    return Problem(*(torch.randn(shape, generator=generator).to(device) for shape in shapes))


def _group_norm(groups: int, problem: Problem) -> Tensor:
    return F.group_norm(problem.x, groups, problem.gamma, problem.beta)


_CHANNELS, _PIXELS = _SHAPE[1], _SHAPE[2] * _SHAPE[3]
_KINDS = (
    Kind(
        "LayerNorm",
        _SHAPE[1:],
        lambda p: F.layer_norm(p.x, _SHAPE[1:], p.gamma, p.beta),
        1,
        _CHANNELS * _PIXELS,
        1,
    ),
    Kind(
        "GroupNorm",
        _SHAPE[1:2],
        partial(_group_norm, _GROUPS),
        _GROUPS,
        _CHANNELS // _GROUPS * _PIXELS,
        _PIXELS,
    ),
    Kind("InstanceNorm", _SHAPE[1:2], partial(_group_norm, _CHANNELS), _CHANNELS, _PIXELS, _PIXELS),
)


def _by_autograd(kind: Kind, problem: Problem) -> Callable[[], tuple[Tensor, ...]]:
    problem = problem._replace(
        **{name: getattr(problem, name).requires_grad_() for name in ("x", "gamma", "delta")}
    )
    (first,) = torch.autograd.grad(kind.call(problem), problem.x, problem.delta, create_graph=True)
    wanted = (problem.delta, problem.x, problem.gamma)
    return lambda: torch.autograd.grad(first, wanted, problem.tangent, retain_graph=True)


def _by_operators(kind: Kind, problem: Problem) -> Callable[[], tuple[Tensor, ...]]:
    x, delta, tangent = (
        u.reshape(-1, kind.columns) for u in (problem.x, problem.delta, problem.tangent)
    )
    inverse, mean = torch.var_mean(x, 1, correction=0)
    inverse = (inverse + 1e-5).rsqrt()
    given = (x, mean, inverse, problem.gamma.flatten(), kind.groups, kind.repeat)
    operators = torch.ops.wgan_fast

    def work() -> tuple[Tensor, ...]:
        pushed = operators.normalisation_jvp(tangent, *given)
        bar, gamma_bar = operators.normalisation_second(delta, tangent, *given)
        shape = problem.gamma.shape
        return pushed.view(_SHAPE), bar.view(_SHAPE), gamma_bar.view(shape)

    return work


def _case(kind: Kind) -> Case:
    numbers = torch.Size(_SHAPE).numel()
    return Case(
        name=f"operators/second-order-{kind.name}",
        sizes=f"{'×'.join(map(str, _SHAPE))}, float32",
        problem=partial(_problem, kind),
        prepare={
            "autograd": partial(_by_autograd, kind),
            "wgan_fast": partial(_by_operators, kind),
        },
        sides=dict.fromkeys(("autograd", "wgan_fast"), lambda work: work()),
        # x, Δ and t in; two tensors out.
        bytes_moved=5 * numbers * _FLOAT32,
        figures=(Figure("wgan_fast", "speed-up", 2.0),),
        requires=(runs_compiled("normalisation_jvp", "normalisation_second"),),
        must_call={"wgan_fast": ("wgan_fast::normalisation_second",)},
        tolerance=1e-4,
    )


CASES = tuple(_case(kind) for kind in _KINDS)
