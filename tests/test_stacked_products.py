"""Two products of matrices made one: the same sum, and only where nothing else changes."""

import copy

import pytest
import torch
from torch import nn

import wgan_fast
from tests.conftest import SEED
from tests.double_backward.critics import random_critic
from tests.test_graph_memory import draw
from wgan_fast import flat_graph
from wgan_fast.flat_graph import trace

ROWS, PENALTY = 6, 2
W = draw(5, 5)


def loss(a):
    """The loss's rows."""
    return a[: ROWS - PENALTY]


def penalty(a):
    """The penalty's rows."""
    return a[ROWS - PENALTY :]


def gradient(delta, a, tangent_of):
    """A weight's, from the loss and from the penalty, and the tangent, in the engine's order."""
    of_loss = loss(delta).t() @ loss(a)
    tangent = tangent_of(penalty(a))
    return of_loss + penalty(delta).t() @ tangent, tangent


def masked(g):
    """A tangent where the activation is above zero."""
    return lambda a: torch.ops.aten.threshold_backward(g, a, 0)


def products(function, arguments=None):
    """How many a function's graph has, whose results are the function's but for rounding."""
    arguments = arguments or [draw(ROWS, 5), draw(ROWS, 5), draw(PENALTY, 5)]
    graph = trace(function, [W], arguments)
    for _ in range(2):
        others = [draw(*one.shape) for one in arguments]
        before = [one.clone() for one in (*others, W)]
        for result, expected in zip(graph(*others), function(*others), strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
        assert all(map(torch.equal, (*others, W), before))
    ops = [str(op) for op in graph.ops]
    return sum(ops.count(f"aten.{name}.default") for name in ("mm", "addmm"))


def test_a_weights_gradient():
    def function(delta, x, g):
        return [gradient(delta, (x @ W).relu(), masked(g))[0]]

    assert products(function) == 2  # x W, and one in the place of two


def test_two_layers():
    def function(delta, x, g):
        a = (x @ W).relu()
        b = (a @ W).relu()
        first, tangent = gradient(delta, a, masked(g))
        return [first, gradient(delta, b, masked(tangent @ W))[0]]

    assert products(function) == 3 + 2


def test_a_tangent_that_is_a_product():
    """As the first layer's is: λ times the direction."""

    def function(delta, x, g):
        return [gradient(delta, x + 1.0, lambda a: g * 3.0)[0]]

    assert products(function) == 1


def test_a_tangent_that_is_used_elsewhere():
    def function(delta, x, g):
        found, tangent = gradient(delta, (x @ W).relu(), masked(g))
        return [found, tangent.exp()]

    assert products(function) == 2


def used_later(delta, x, g):
    a = (x @ W).relu()
    return [gradient(delta, a, masked(g))[0], penalty(a) * 2.0]


def a_result(delta, x, g):
    a = (x @ W).relu()
    return [gradient(delta, a, masked(g))[0], a]


def an_argument(delta, a, g):
    return [gradient(delta, a, masked(g))[0]]


def other_rows(delta, x, g):
    a = (x @ W).relu()
    of_loss = loss(delta).t() @ loss(a)
    return [of_loss + delta[:PENALTY].t() @ masked(g)(penalty(a))]


def other_cotangents(delta, x, g):
    a = (x @ W).relu()
    of_loss = loss(delta).t() @ loss(a)
    return [of_loss + penalty(delta + 1.0).t() @ masked(g)(penalty(a))]


def overlapping(delta, x, g):
    a = (x @ W).relu()
    of_loss = delta[: ROWS - 1].t() @ a[: ROWS - 1]
    return [of_loss + penalty(delta).t() @ masked(g)(penalty(a))]


def a_mask_from_other_rows(delta, x, g):
    return [gradient(delta, a := (x @ W).relu(), lambda _: masked(g)(a[1 : 1 + PENALTY]))[0]]


def cotangents_that_are_overwritten(delta, x, g):
    a = (x @ W).relu()
    delta = delta * 2.0
    of_loss = loss(delta).t() @ loss(a)
    loss(delta).fill_(0.0)
    return [of_loss + penalty(delta).t() @ masked(g)(penalty(a))]


def activations_that_are_overwritten(delta, x, g):
    a = (x @ W).relu()
    of_loss = loss(delta).t() @ loss(a)
    a.mul_(2.0)
    return [of_loss + penalty(delta).t() @ masked(g)(penalty(a))]


def a_sum_that_is_used_elsewhere(delta, x, g):
    a = (x @ W).relu()
    of_loss = loss(delta).t() @ loss(a)
    return [of_loss + penalty(delta).t() @ masked(g)(penalty(a)), of_loss.exp()]


@pytest.mark.parametrize(
    "function",
    [
        used_later,
        a_result,
        an_argument,
        other_rows,
        other_cotangents,
        overlapping,
        a_mask_from_other_rows,
        cotangents_that_are_overwritten,
        activations_that_are_overwritten,
        a_sum_that_is_used_elsewhere,
    ],
)
def test_what_must_stay_two(function):
    expected = 2 if function is an_argument else 3
    assert products(function) == expected


@pytest.mark.parametrize("penalised", ["gp", "r1+r2"])
@pytest.mark.parametrize("seed", range(SEED, SEED + 5))
def test_random_critics(seed, penalised, monkeypatch):
    torch.manual_seed(seed)
    critic, shape = random_critic(seed)
    critic = critic.double()
    real, fake = draw(*shape), draw(*shape)
    found = []
    for stack in (flat_graph.stack_products, lambda graph: None):
        monkeypatch.setattr(flat_graph, "stack_products", stack)
        try:
            # A critic of its own: a step may move its buffers.
            step = wgan_fast.freeze(copy.deepcopy(critic), real, penalty=penalised)
        except wgan_fast.TraceError:
            pytest.skip("this one cannot be frozen")
        torch.manual_seed(seed)  # for α and dropout's masks
        value, gradients = step.value_and_grad(real, fake)
        found.append([value, *(g for g in gradients.values() if g is not None)])
    largest = max(one.abs().max() for one in found[1])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-11 * largest


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
def test_an_mlps_step(activation):
    """All its weights' gradients are one product each."""
    critic = nn.Sequential(
        nn.Linear(3, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 1)
    )
    real = torch.randn(7, 3)
    ops = [str(op) for op in wgan_fast.freeze(critic, real).graph(real).ops]
    layers = 3
    # Forward, back to the input, tangents but for the last layer's, weights' gradients.
    assert ops.count("aten.addmm.default") == layers
    assert ops.count("aten.mm.default") == layers + (layers - 1) + layers
