"""``rmsprop_`` against its formula in float64; the optimiser around it has tests of its own."""

import itertools
import math

import pytest
import torch

from tests.harness import DTYPES, ROUNDING, opcheck
from wgan_fast import ops
from wgan_fast.ops.rmsprop import _plain


def _plain_step(*tensors, lr, **settings):
    filled = {"alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, **settings}
    filled = {"maximize": False, "clip_value": None, **filled}
    on_device = isinstance(lr, torch.Tensor)
    lists = [*tensors, [], []][:5]
    _plain(*lists, lr=0.0 if on_device else lr, lr_tensor=lr if on_device else None, **filled)


IMPLEMENTATIONS = {"dispatched": ops.rmsprop_, "plain": _plain_step}
implementations = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)

# A critic's shapes and the odd ones; 70,001 numbers are more than one thread's share.
SHAPES = ((3, 5), (1,), (0,), (), (16, 3, 4, 4), (40_001,), (129,), (7,), (8,), (9,))
OPTIONS = tuple(
    {"centered": c, "momentum": m, "weight_decay": w, "maximize": x, "clip_value": v}
    for c, m, w, x, v in itertools.product(
        (False, True), (0.0, 0.9), (0.0, 0.1), (False, True), (None, 0.05)
    )
)


class Problem:
    """Parameters, gradients and a state as some training has left it."""

    def __init__(self, dtype, shapes=SHAPES):
        def draw(scale=1.0):
            return [(torch.randn(s, dtype=torch.float64) * scale).to(dtype) for s in shapes]

        self.parameters, self.gradients = draw(0.1), draw()
        self.averages, self.buffers = draw(0.3), draw()
        # v > m², as for every history; far from it, so that the root is well conditioned.
        self.squares = [
            (m.double() ** 2 + 0.1 + torch.rand(m.shape, dtype=torch.float64)).to(dtype)
            for m in self.averages
        ]

    def lists(self, centered, momentum):
        averages = self.averages if centered else []
        buffers = self.buffers if momentum else []
        return self.parameters, self.gradients, self.squares, averages, buffers


def formula(lists, lr, alpha, eps, weight_decay, momentum, maximize, clip_value):
    """The docstring's, in float64: lists of parameters, squares, averages and buffers."""
    results = [], [], [], []
    for theta, g, v, m, b in itertools.zip_longest(*lists):
        bound = math.inf if clip_value is None else clip_value
        bound = torch.tensor(bound, dtype=torch.float64).to(theta.dtype).double()
        theta, g, v = theta.double(), g.double(), v.double()
        g = (-g if maximize else g) + weight_decay * theta
        v = alpha * v + (1 - alpha) * g**2
        spread = v
        if m is not None:
            m = alpha * m.double() + (1 - alpha) * g
            spread = v - m**2
        d = g / (spread.sqrt() + eps)
        if b is not None:
            d = momentum * b.double() + d
        step = (theta - lr * d).clamp(-bound, bound)
        for result, tensor in zip(results, (step, v, m, d), strict=True):
            result.append(tensor)
    return results


def assert_all_close(tensors, expected):
    """To the rounding of the largest number: a step is a difference, which may cancel."""
    scale = max((wanted.abs().max().item() for wanted in expected if wanted.numel()), default=0)
    for tensor, wanted in zip(tensors, expected, strict=True):
        assert tensor.shape == wanted.shape
        error = (tensor.double() - wanted).abs().max().item() if wanted.numel() else 0
        assert error <= ROUNDING[tensor.dtype] * scale, f"off by {error / scale:.1e}"


@implementations
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_step_of_every_kind(dtype, implementation):
    for options in OPTIONS:
        problem = Problem(dtype)
        lists = problem.lists(options["centered"], options["momentum"])
        settings = {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, **options}
        del settings["centered"]
        parameters, squares, averages, buffers = formula(lists, **settings)
        IMPLEMENTATIONS[implementation](*lists, **settings)
        assert_all_close(problem.parameters, parameters)
        assert_all_close(problem.squares, squares)
        assert_all_close(lists[3], averages if lists[3] else [])
        assert_all_close(lists[4], buffers if lists[4] else [])


@implementations
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.999])
def test_both_ways_to_interpolate(alpha, implementation):
    problem = Problem(torch.float64)
    lists = problem.lists(centered=True, momentum=0)
    settings = {"lr": 0.02, "alpha": alpha, "eps": 1e-2}
    rest = {"weight_decay": 0.0, "momentum": 0.0, "maximize": False, "clip_value": None}
    # At alpha = 0 the spread is g² − g², of which rounding decides; its root stays below eps.
    wanted = formula(lists, **settings, **rest)
    IMPLEMENTATIONS[implementation](*lists, **settings)
    assert_all_close(problem.averages, wanted[2])
    if alpha:
        assert_all_close(problem.parameters, wanted[0])


def in_layout(tensor, layout):
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "holes":
        return torch.stack([tensor, torch.full_like(tensor, torch.nan)], -1).flatten(-2)[..., ::2]
    if layout == "unaligned":
        return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)
    return tensor.contiguous()


LAYOUTS = ("contiguous", "channels_last", "transposed", "holes", "unaligned")


@implementations
@pytest.mark.parametrize("parameter_layout", LAYOUTS)
@pytest.mark.parametrize("other_layout", LAYOUTS)
def test_layouts_do_not_matter(parameter_layout, other_layout, implementation):
    problem = Problem(torch.float64, ((6, 3, 5, 4),))
    given = problem.lists(centered=True, momentum=0.9)
    parameters, squares, averages, buffers = formula(given, 0.02, 0.9, 1e-3, 0.1, 0.9, False, 0.05)
    layouts = (parameter_layout, *[other_layout] * 4)
    lists = [[in_layout(t.clone(), layout) for t in ts] for ts, layout in zip(given, layouts)]  # noqa: B905
    step = IMPLEMENTATIONS[implementation]
    step(*lists, lr=0.02, alpha=0.9, eps=1e-3, weight_decay=0.1, momentum=0.9, clip_value=0.05)
    for tensors, wanted in zip(lists, (parameters, given[1], squares, averages, buffers)):  # noqa: B905
        assert_all_close(tensors, wanted)


def test_neighbours_stay():
    bases = [torch.full((1002,), 7.0) for _ in range(5)]
    inside = [[base[3:995].normal_()] for base in bases]
    inside[2][0].abs_().add_(20)
    ops.rmsprop_(*inside, lr=0.1, momentum=0.5, clip_value=0.2)
    for base in bases:
        assert torch.equal(base[:3], torch.full((3,), 7.0))
        assert torch.equal(base[995:], torch.full((7,), 7.0))
    assert inside[0][0].abs().max() == torch.tensor(0.2)


@implementations
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_stays_and_infinity_is_clipped(dtype, implementation):
    for length in (4, 67):  # in the tail, and in the vector part
        parameter = torch.zeros(length, dtype=dtype)
        parameter[0], parameter[1], parameter[-1] = torch.tensor([math.nan, math.inf, -math.inf])
        gradient, square = torch.zeros_like(parameter), torch.ones_like(parameter)
        IMPLEMENTATIONS[implementation]([parameter], [gradient], [square], lr=0.1, clip_value=0.25)
        assert parameter.isnan().nonzero().flatten().tolist() == [0]
        assert parameter[[1, -1]].tolist() == [0.25, -0.25]


@implementations
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_bound_is_clamps_bound(dtype, implementation):
    """0.01 is no number of a short type; the clamp is to what it is rounded to."""
    parameter = torch.randn(50).to(dtype)
    expected = torch.full_like(parameter, 100).clamp_(-0.01, 0.01).unique()
    states = torch.zeros_like(parameter), torch.ones_like(parameter)
    IMPLEMENTATIONS[implementation]([parameter], *([s] for s in states), lr=0.1, clip_value=0.01)
    assert torch.equal(parameter.abs().max(), expected[0])


@implementations
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("lr_dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_learning_rate_in_a_tensor(lr_dtype, shape, implementation):
    rate = torch.full(shape, 0.02, dtype=lr_dtype)
    problem = Problem(torch.float64)
    lists = problem.lists(centered=False, momentum=0)
    settings = {"alpha": 0.9, "eps": 1e-3}
    rest = {"weight_decay": 0.0, "momentum": 0.0, "maximize": False, "clip_value": None}
    wanted = formula(lists, lr=rate.double().item(), **settings, **rest)
    IMPLEMENTATIONS[implementation](*lists, lr=rate, **settings)
    assert_all_close(problem.parameters, wanted[0])


def test_no_parameters():
    assert ops.rmsprop_([], [], [], lr=0.1) is None


def test_a_thousand_tensors():
    problem = Problem(torch.float64, [(k % 40,) for k in range(1000)])
    lists = problem.lists(centered=True, momentum=0.9)
    settings = {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "momentum": 0.9, "clip_value": 0.05}
    wanted = formula(lists, weight_decay=0.0, maximize=False, **settings)
    ops.rmsprop_(*lists, **settings)
    assert_all_close(problem.parameters, wanted[0])


def test_a_graph_notices():
    weights = torch.randn(3, requires_grad=True)
    output = (weights * weights).sum()
    with torch.no_grad():
        ops.rmsprop_([weights], [torch.ones(3)], [torch.ones(3)], lr=0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


ONE = torch.ones(4)


@pytest.mark.skipif(ops.status()["rmsprop_"]["cpu"] != "C++", reason="no extension was built")
@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (([ONE], [], [ONE]), "a gradient and a square average for each parameter"),
        (([ONE], [ONE], [ONE], [ONE] * 2), "for all 1 parameters or for none"),
        (([ONE], [ONE[:2]], [ONE]), "gradients must have their"),
        (([ONE], [ONE], [ONE.double()]), "square_averages must have their"),
        (([ONE.int()], [ONE], [ONE]), "parameters must be floating point"),
    ],
)
def test_a_direct_call_cannot_read_outside_of_a_tensor(lists, message):
    with pytest.raises(RuntimeError, match=message):
        ops.rmsprop_(*lists, lr=0.1)


def test_opcheck():
    lists = [[torch.rand(3, 4), torch.rand(5)] for _ in range(5)]
    keywords = {"lr": 0.1, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.9}
    keywords |= {"maximize": False, "clip_value": 0.3}
    opcheck(torch.ops.wgan_fast.rmsprop_.default, tuple(lists), keywords)
