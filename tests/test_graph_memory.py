"""What a flat graph writes into: never anything that is needed still, and the same bits."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wgan_fast
from tests.conftest import SEED
from tests.double_backward.critics import random_critic
from wgan_fast import flat_graph
from wgan_fast.flat_graph import trace


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def traced(function, arguments, state=()):
    """The graph, whose results on other numbers are the function's to the bit."""
    graph = trace(function, state, arguments, to_the_bit=True)
    for _ in range(2):
        others = [draw(*one.shape) for one in arguments]
        before = [one.clone() for one in (*others, *state)]
        for result, expected in zip(graph(*others), function(*others), strict=True):
            assert torch.equal(result, expected)
        assert all(map(torch.equal, (*others, *state), before))
    return [str(op).removeprefix("aten.") for op in graph.ops]


W = draw(4, 4)


def test_an_activation_is_written_over_its_input():
    assert traced(lambda x: [F.leaky_relu(x @ W, 0.2).sum()], [draw(3, 4)], [W]) == [
        "mm.default", "leaky_relu_.default", "sum.default",
    ]  # fmt: skip


def test_one_after_the_other():
    def function(x):
        return [((x @ W).tanh() * 2.0 + 1.0).sigmoid()]

    assert traced(function, [draw(3, 4)], [W]) == [
        "mm.default", "tanh_.default", "mul_.Tensor", "add_.Tensor", "sigmoid_.default",
    ]  # fmt: skip


def test_through_a_view_of_all_of_it():
    def function(x):
        return [(x @ W).view(4, 3).t().relu().sum(0)]

    assert "relu_.default" in traced(function, [draw(3, 4)], [W])


STILL_NEEDED = {
    "used later": lambda x: [(h := x @ W).relu(), h.sum()],
    "a result": lambda x: [h := x @ W, h.relu()],
    "a view of it is used later": lambda x: [(v := (h := x @ W)[1:]).sum(0), h.relu(), v.exp()],
    "a view of it is a result": lambda x: [(h := x @ W)[0], h.relu()],
    "an argument": lambda x: [x.relu()],
    "a part of an argument": lambda x: [x[1:].relu()],
    "state": lambda x: [W.relu(), x.sum()],
    "a part of it": lambda x: [(x @ W)[1:].relu()],
    "the other argument is a part of it": lambda x: [(h := x @ W) * h[:1]],
    "another type": lambda x: [(x @ W).float() * draw_once],
    "spread out": lambda x: [(x[:, :1] @ W[:1, :1]).expand(3, 4) * x],
    "larger": lambda x: [(x[:1] @ W) * x],
}  # fmt: skip
draw_once = torch.rand(3, 4, dtype=torch.float64) + 1


@pytest.mark.parametrize("case", STILL_NEEDED)
def test_what_is_needed_still(case):
    ops = traced(STILL_NEEDED[case], [draw(3, 4)], [W, draw_once])
    assert not any(op.split(".")[0].endswith("_") for op in ops)


def test_an_argument_twice():
    assert "mul_.Tensor" in traced(lambda x: [(h := x @ W) * h], [draw(3, 4)], [W])


def test_results_of_one_op_lie_apart():
    """Layer norm's are three."""

    def function(x):
        mean = torch.ops.aten.native_layer_norm(x @ W, [4], None, None, 1e-5)
        return [mean[0].relu(), mean[1], mean[2]]

    assert "relu_.default" in traced(function, [draw(3, 4)], [W])


def test_parts_of_one_result_lie_together():
    def function(x):
        first, last = (x @ W).split(2, dim=1)
        return [first.relu() + last, last.relu()]

    assert not any("relu_" in op for op in traced(function, [draw(3, 4)], [W]))


@pytest.fixture(scope="module")
def others():
    """Operators of somebody else's: views, said to be views or not."""
    library = torch.library.Library("graph_memory_test", "DEF")
    library.define("halves(Tensor(a) x, Tensor(b) y) -> (Tensor(a), Tensor(b))")
    library.define("unsaid(Tensor x) -> Tensor")
    kind = "CompositeExplicitAutograd"
    library.impl("halves", lambda x, y: (x[:2], y[:2]), kind)
    library.impl("unsaid", lambda x: x[:2], kind)
    yield torch.ops.graph_memory_test
    library._destroy()


def changed(function):
    """Whether an activation is written in place in a function's graph, whose results are right."""
    return any("relu_" in op for op in traced(function, [draw(3, 4)], [W]))


def test_views_of_several_arguments(others):
    def function(x):
        first, last = x @ W, x @ (2.0 * W)
        of_first, of_last = others.halves(first, last)
        return [first.relu(), last.relu(), of_first.exp(), of_last.exp()]

    assert not changed(function)


def test_views_that_nobody_says_are_any(others):
    def of_another(x):
        hidden = x @ W
        view = others.unsaid(hidden)
        return [view.sum(0), hidden.relu(), view.exp()]

    def unsafe(x):
        hidden = x @ W
        view = torch.ops.aten._unsafe_view(hidden, [4, 3])
        return [view.sum(0), hidden.relu(), view.exp()]

    assert not changed(of_another)
    assert not changed(unsafe)


def test_memory_that_is_given_to_another():
    def function(x):
        first, last = x @ W, x @ (2.0 * W)
        last.set_(first)
        return [first.relu(), last.exp()]

    assert not changed(function)


def test_another_layout():
    """Results are strided as they were."""

    def function(x):
        return [(x @ W).t() * draw_tall]

    graph = trace(function, [W, draw_tall], [x := draw(3, 4)], to_the_bit=True)
    assert graph(x)[0].stride() == function(x)[0].stride()


draw_tall = torch.rand(4, 3, dtype=torch.float64)


def test_another_device():
    """A number's, on a CPU, is not where the tensor is that it is multiplied with."""

    def function(number, x):
        return [(number * 2.0) * x]

    graph = trace(function, [], [torch.tensor(2.0), torch.empty((), device="meta")])
    assert [str(op) for op in graph.ops].count("aten.mul.Tensor") == 2


def test_ops_that_write_already():
    def function(x):
        hidden = x @ W
        view = hidden[:2]
        view.mul_(3.0)
        return [hidden.relu(), (x @ W).add_(1.0).relu()]

    assert traced(function, [draw(3, 4)], [W]).count("relu_.default") == 2


@pytest.mark.parametrize("seed", range(SEED, SEED + 8))
def test_a_critics_step_to_the_bit(seed, monkeypatch):
    """With and without, on random critics."""
    torch.manual_seed(seed)
    critic, shape = random_critic(seed)
    critic = critic.double()
    real, fake = draw(*shape), draw(*shape)
    alpha = torch.rand(shape[0], dtype=torch.float64)
    found = []
    for reuse in (flat_graph.reuse_memory, lambda graph: None):
        monkeypatch.setattr(flat_graph, "reuse_memory", reuse)
        try:
            # A critic of its own: a step may move its buffers.
            step = wgan_fast.freeze(copy.deepcopy(critic), real)
        except wgan_fast.TraceError:
            pytest.skip("this one cannot be frozen")
        torch.manual_seed(seed)  # for dropout's masks
        loss, gradients = step.value_and_grad(real, fake, alpha=alpha)
        found.append([loss, *(g for g in gradients.values() if g is not None)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_resnets_activations_are_written_in_place():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.first = nn.LayerNorm((4, 8, 8)), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return x + self.first(self.norm(x).relu())

    critic = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), Block(), Block(), nn.Flatten(), nn.Linear(256, 1)
    )
    real = torch.randn(4, 1, 8, 8)
    ops = [str(op) for op in wgan_fast.freeze(critic, real).graph(real).ops]
    assert "aten.relu_.default" in ops
    assert "aten.relu.default" not in ops
    assert "aten.threshold_backward.default" not in ops
