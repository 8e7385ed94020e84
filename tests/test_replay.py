"""The extension's list of calls against the same graph run by Python."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from wgan_fast.flat_graph import trace
from wgan_fast.graph_memory import shares_memory
from wgan_fast.live_memory import peak_bytes
from wgan_fast.ops.registration import EXTENSION_MISSING
from wgan_fast.replay import replay_of as replay_of_graph

pytestmark = pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here")


def replay_of(graph):
    return replay_of_graph(graph, shares_memory(graph))


def lists_of_tensors(x):
    first, second, rest = x.split([1, 2, x.shape[0] - 3])
    return [torch.cat([second, rest, first]), torch.stack([first[0], rest[0]])]


def lists_with_nones(x):
    places = x[0].argsort()
    return [x[:, places], torch.ops.aten.index_put(x, [None, places], x[:, :1])]


def words_and_enumerations(x):
    return [
        F.gelu(x, approximate="tanh"),
        torch.zeros_like(x, dtype=torch.float64) + x,
        torch.full(x.shape, 2, dtype=x.dtype, device=x.device, layout=torch.strided) * x,
        x[None, None].clone(memory_format=torch.channels_last),
        torch.div(x, 0.3, rounding_mode="floor"),
    ]


def numbers(x):
    return [
        x * 2,
        1 - x,
        x.clamp(min=-0.5),
        x.clamp(-1, 1.0),
        (x > 0) & True,
        torch.add(x, x, alpha=3),
    ]


def averages(x):
    wide, narrow = x.double(), x.bfloat16()
    scaled = [wide * 0.1, narrow * 0.1, 3 / wide, x.long() * 2, x.long() / 3, x - 0.1]
    return [x.mean(), wide.mean(), narrow.mean(), x.mean(1), x.mean(dtype=torch.float64), *scaled]


def written(x):
    total = x.clone()
    total[1:] += 1
    part = total[0]
    total.mul_(2)
    return [part, total, total.fill_diagonal_(7)]


def several_results(x):
    values, places = x.sort(dim=1)
    mean, _, _ = torch.native_layer_norm(x, [x.shape[1]], None, None, 1e-5)
    return [values, places, mean, torch.var_mean(x, 1)[1]]


def without_some(x):
    images, weight = x[None, None], x[:1, :2][None, None]
    of_images, _, of_bias = torch.ops.aten.convolution_backward(
        F.conv2d(images, weight), images, weight, [1], [1, 1], [0, 0], [1, 1], False, [0, 0], 1,
        [True, False, True],
    )  # fmt: skip
    return [of_images, None, of_bias]


def drawn(x):
    return [torch.rand_like(x), F.dropout(x), torch.randn(3), x + torch.bernoulli(x.sigmoid())]


def inputs_as_results(x):
    return [x, x.t(), x]


FUNCTIONS = [
    lists_of_tensors, lists_with_nones, words_and_enumerations, numbers, averages, written,
    several_results, without_some, drawn, inputs_as_results,
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_the_same_as_python(function):
    graph = make_fx(function)(torch.randn(5, 4))
    replay = replay_of(graph.graph)
    assert replay is not None
    x = torch.randn(5, 4)
    torch.manual_seed(1)
    expected = graph(x.clone())
    torch.manual_seed(1)
    found = replay(x)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            assert (ours.dtype, ours.stride()) == (theirs.dtype, theirs.stride())
            assert torch.equal(ours, theirs)


def test_an_input_is_itself():
    replay = replay_of(make_fx(inputs_as_results)(torch.randn(5, 4)).graph)
    x = torch.randn(5, 4)
    first, _, last = replay(x)
    assert first is x
    assert last is x


WRITTEN = {
    "itself": lambda x: x.add_(1),
    "a view of it": lambda x: x.t()[1:].mul_(2),
    "by another op's argument": lambda x: torch.add(x, 1, out=x),
    "one of several": lambda x: torch.ops.aten._foreach_add_([x.clone(), x], 1),
    "a view that may be none": lambda x: x.reshape(4, 5).add_(1),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_inputs_that_are_written_count_their_versions(name):
    """By which autograd knows that what it kept is not what it was."""

    def function(x):
        WRITTEN[name](x)
        return [x.sum()]

    graph = make_fx(function)(torch.randn(5, 4)).graph
    assert shares_memory(graph)
    replay, x = replay_of(graph), torch.randn(5, 4)
    expected = function(x.clone())
    before = x._version
    assert torch.equal(replay(x)[0], expected[0])
    assert x._version > before


def test_results_that_are_nobody_elses_hold_nothing_else():
    def function(x):
        return [(x @ x.t()).relu_().t(), None, x.exp().add_(1)[0]]

    graph = make_fx(function)(torch.randn(5, 4)).graph
    assert not shares_memory(graph)
    first, _, last = replay_of(graph)(torch.randn(5, 4))
    assert first._base is None
    assert last._base is None


SHARED = {
    "an input": lambda x: [x],
    "a view of one": lambda x: [x.t()],
    "each other's": lambda x: [h := x.exp(), h.t()],
    "twice the same": lambda x: [h := x.exp(), h],
}


@pytest.mark.parametrize("name", SHARED)
def test_results_that_others_have_too_are_known_to_autograd(name):
    """Which says so if they are written while it needs them."""
    graph = make_fx(SHARED[name])(torch.randn(5, 4)).graph
    assert shares_memory(graph)
    weight = torch.randn(5, 4, requires_grad=True)
    with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
        result = replay_of(graph)(weight)[-1]
    before = result._version
    with torch.no_grad():
        (result if result._base is None else result._base).add_(1)
    assert result._version > before


def test_errors_are_the_operators_own():
    replay = replay_of(make_fx(lambda x: [x @ x.t()])(torch.randn(5, 4)).graph)
    with pytest.raises(RuntimeError, match="but self is 3D"):
        replay(torch.randn(5, 4, 3))
    with pytest.raises(TypeError, match="expected 1 tensors, got 2"):
        replay(torch.randn(5, 4), torch.randn(5, 4))
    with pytest.raises(TypeError, match="expected tensors"):
        replay(3)


def test_what_is_no_operator_stays_with_python():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    graph.output([graph.call_function(operator.neg, (x,))])
    assert replay_of(graph) is None


def test_modes_see_the_calls():
    """What counts, records or fakes ops sees those of a replay."""
    graph = trace(lambda x: [x.sin() + 1], [], [torch.randn(5, 4)])
    seen = []

    class Seeing(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            seen.append(op)
            return op(*args, **(kwargs or {}))

    x = torch.randn(5, 4)
    with Seeing():
        graph(x)
    assert seen == [torch.ops.aten.sin.default, torch.ops.aten.add.Tensor]


def test_memory_goes_after_its_last_use():
    def chain(x):
        for _ in range(10):
            x = x.sin()
            x.view(-1)[:3].add_(1.0)  # a result that nobody uses
        return [x]

    x = torch.randn(1000)
    graph = trace(chain, [], [x])
    assert peak_bytes(lambda: graph(x), x.device) <= 2 * 4000
