"""Products with a few columns, turned: the same sums and layouts, and only where that is faster."""

import pytest
import torch
from torch import nn

import wgan_fast
from wgan_fast import flat_graph
from wgan_fast.flat_graph import trace

ROWS, WIDE = 48, 32


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def ops_of(function, arguments):
    """A graph's ops, and that its results and their layouts are the function's."""
    graph = trace(function, [], arguments)
    for _ in range(2):
        others = [torch.randn_like(one) for one in arguments]
        before = [one.clone() for one in others]
        for result, expected in zip(graph(*others), function(*others), strict=True):
            accurate = 1e-12 if expected.dtype == torch.float64 else 1e-5
            torch.testing.assert_close(result, expected, rtol=accurate, atol=accurate)
            assert result.stride() == expected.stride()
        assert all(map(torch.equal, others, before))
    return [str(op).removeprefix("aten.") for op in graph.ops]


def a_weights_gradient(delta, x):
    return [delta.t() @ x]


def an_inputs_gradient(delta, weight):
    return [delta @ weight]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("columns", range(2, 9))
def test_what_is_turned(columns, dtype):
    delta = draw(ROWS, WIDE, dtype=dtype)
    ops = ops_of(a_weights_gradient, [delta, draw(ROWS, columns, dtype=dtype)])
    assert ops == ["t.default", "mm.default", "t.default", "clone.default"]
    ops = ops_of(an_inputs_gradient, [delta, draw(WIDE, columns, dtype=dtype)])
    assert ops == ["t.default", "clone.default", "t.default", "mm.default"]


LEFT_ALONE = {
    "a vector": (an_inputs_gradient, [draw(ROWS, WIDE), draw(WIDE, 1)]),
    "wide": (an_inputs_gradient, [draw(ROWS, WIDE), draw(WIDE, 9)]),
    "few rows": (an_inputs_gradient, [draw(31, WIDE), draw(WIDE, 2)]),
    "short sums": (an_inputs_gradient, [draw(ROWS, 31), draw(31, 2)]),
    "narrow numbers": (
        an_inputs_gradient,
        [one.bfloat16() for one in (draw(ROWS, WIDE), draw(WIDE, 2))],
    ),
    "columns in runs": (lambda a, w: [a @ w.t()], [draw(ROWS, WIDE), draw(2, WIDE)]),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_left_alone(name):
    function, arguments = LEFT_ALONE[name]
    graph = trace(function, [], arguments)
    assert "aten.clone.default" not in [str(op) for op in graph.ops]
    assert torch.equal(graph(*arguments)[0], function(*arguments)[0])


def test_what_is_done_with_the_result():
    """A turned product's own memory is written over, as any other's, and no other's."""

    def function(delta, weight, x):
        g = delta @ weight
        kept = g.sum(0)
        scaled = (delta.t() @ x).relu() * 2.0
        return [g.relu(), kept, scaled, (delta.t() @ x).sum(1)]

    ops = ops_of(function, [draw(ROWS, WIDE), draw(WIDE, 3), draw(ROWS, 2)])
    assert {"relu_.default", "mul_.Tensor"} <= set(ops)
    assert "relu.default" not in ops


def test_a_transpose_of_what_is_transposed_in_place():
    def function(a, x):
        a = a.clone()
        y = a.t()
        a.t_()
        return [y @ x]

    ops_of(function, [draw(WIDE, WIDE), draw(WIDE, 2)])


def test_to_the_bit_nothing_is_turned():
    arguments = [draw(ROWS, WIDE), draw(ROWS, 2)]
    graph = trace(a_weights_gradient, [], arguments, to_the_bit=True)
    assert torch.equal(graph(*arguments)[0], a_weights_gradient(*arguments)[0])
    assert [str(op) for op in graph.ops] == ["aten.t.default", "aten.mm.default"]


@pytest.mark.parametrize("layer", [nn.ReLU, nn.Tanh, nn.GELU])
def test_a_critic_of_points(layer, monkeypatch):
    critic = nn.Sequential(
        nn.Linear(2, WIDE), layer(), nn.Linear(WIDE, WIDE), layer(), nn.Linear(WIDE, 1)
    ).double()
    real, fake, alpha = draw(ROWS, 2), draw(ROWS, 2), torch.rand(ROWS, dtype=torch.float64)
    monkeypatch.setattr("wgan_fast.frozen_function.parts_of", lambda arguments: 1)
    step = wgan_fast.freeze(critic, real)
    # The penalty's gradient in the samples, and the first weight's own.
    turned = [node for node in step.graph(real).module.graph.nodes if is_turned(node)]
    assert len(turned) >= 2
    value, found = step.value_and_grad(real, fake, alpha)
    loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend="autograd")
    torch.testing.assert_close(value, loss.detach(), rtol=1e-12, atol=1e-12)
    for name, expected in zip(
        found, torch.autograd.grad(loss, list(critic.parameters())), strict=True
    ):
        torch.testing.assert_close(found[name], expected, rtol=1e-10, atol=1e-10)


def is_turned(node):
    """Whether a product is one whose thin side was turned."""
    return node.target is torch.ops.aten.clone.default and (
        node.kwargs.get("memory_format") is torch.contiguous_format
    )


def test_the_pass_is_what_turns(monkeypatch):
    monkeypatch.setattr(flat_graph, "turn_thin_products", lambda graph: None)
    graph = trace(a_weights_gradient, [], [draw(ROWS, WIDE), draw(ROWS, 2)])
    assert "aten.clone.default" not in [str(op) for op in graph.ops]
