"""The derivatives of normalisations: against autograd in float64, in C++ and in plain PyTorch."""

import pytest
import torch
from torch.nn.functional import group_norm, layer_norm

from tests.harness import opcheck
from wgan_fast.ops import normalisation

OPS = torch.ops.wgan_fast
PLAIN = {
    "vjp": normalisation._vjp,
    "jvp": normalisation._jvp,
    "second": normalisation._second,
    "parameters": normalisation._parameters,
}
TRITON_VJP = normalisation._triton_projected(before=True)  # checks before it launches
COMPILED = {name: getattr(OPS, f"normalisation_{name}") for name in PLAIN}
# rows of x, columns, groups, repeat: one number, odd rows, runs shorter and longer than a vector,
# rows longer than a chunk, more rows than parts.
GEOMETRIES = (
    (1, 1, 1, 1), (3, 7, 1, 1), (5, 33, 1, 1), (6, 6, 3, 3), (8, 15, 4, 5), (12, 70, 2, 35),
    (2, 100_003, 1, 1), (40, 96, 8, 16), (9, 64, 3, 1),
)  # fmt: skip
ROUNDING = {torch.float64: 1e-11, torch.float32: 2e-4}


def problem(rows, columns, groups, repeat, dtype=torch.float64, weighted=True, centred=True):
    x, delta, tangent = 2 * torch.randn(3, rows, columns, dtype=dtype) + 0.5
    inverse = x.square().mean(1).add(0.1).rsqrt()
    mean = None
    if centred:
        mean, inverse = x.mean(1), (x.var(1, correction=0) + 0.1).rsqrt()
    elements = groups * columns // repeat
    gamma = 1 + torch.randn(elements, dtype=dtype) if weighted else None
    return delta, tangent, x, mean, inverse, gamma, groups, repeat


def everything(ops, delta, tangent, x, mean, inverse, gamma, groups, repeat):
    rows = x, mean, inverse
    return (
        ops["vjp"](delta, *rows, gamma, groups, repeat),
        ops["jvp"](tangent, *rows, gamma, groups, repeat),
        *ops["second"](delta, tangent, *rows, gamma, groups, repeat),
        *ops["parameters"](delta, *rows, groups, repeat),
    )


def by_autograd(delta, tangent, x, mean, inverse, gamma, groups, repeat):
    """The same six from the definition of the norm, with its statistics computed again."""
    x = x.clone().requires_grad_()
    elements = groups * x.shape[1] // repeat
    weight = torch.ones(elements, dtype=x.dtype) if gamma is None else gamma.clone()
    weight.requires_grad_()
    bias = torch.zeros_like(weight, requires_grad=True)
    if mean is None:
        normal = x * (x.square().mean(1, keepdim=True) + 0.1).rsqrt()
        y = normal * weight + bias
    elif groups == repeat == 1:
        y = layer_norm(x, x.shape[1:], weight, bias, 0.1)
    else:
        seen = x.view(-1, elements, repeat)
        y = group_norm(seen, groups, weight, bias, 0.1).view(x.shape)
    probe = torch.ones_like(delta, requires_grad=True)
    x_bar, gamma_bar, beta_bar = torch.autograd.grad(
        y, (x, weight, bias), delta * probe, create_graph=True
    )
    slope = (x_bar * tangent).sum()
    second = torch.autograd.grad(slope, (x, weight), retain_graph=True, materialize_grads=True)
    (along,) = torch.autograd.grad(slope, probe)  # Δ t_y
    return x_bar, along / delta, *second, gamma_bar, beta_bar


def assert_close(got, expected, dtype):
    for one, other in zip(got, expected, strict=True):
        scale = max(other.abs().max().item(), 1e-3)  # a row of one number has derivative zero
        assert one.dtype == dtype
        assert (one.double() - other).abs().max().item() <= ROUNDING[dtype] * scale


@pytest.mark.parametrize("ops", [PLAIN, COMPILED], ids=["plain", "compiled"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_against_autograd(geometry, weighted, ops):
    given = problem(*geometry, weighted=weighted)
    got, expected = everything(ops, *given), by_autograd(*given)
    assert_close(got, [e.detach() for e in expected], torch.float64)


@pytest.mark.parametrize("ops", [PLAIN, COMPILED], ids=["plain", "compiled"])
@pytest.mark.parametrize("geometry", [(3, 7, 1, 1), (5, 1033, 1, 1)], ids=str)
def test_not_centred(geometry, ops):
    given = problem(*geometry, centred=False)
    got, expected = everything(ops, *given), by_autograd(*given)
    assert_close(got, [e.detach() for e in expected], torch.float64)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_float32(geometry):
    given = problem(*geometry, dtype=torch.float32)
    wide = [g.double() if isinstance(g, torch.Tensor) else g for g in given]
    assert_close(everything(COMPILED, *given), everything(PLAIN, *wide), torch.float32)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", list(ROUNDING), ids=str)
@pytest.mark.parametrize(
    "geometry", [*GEOMETRIES, (4, 131_072, 2, 1024), (70, 4096, 1, 1)], ids=str
)
def test_on_a_gpu(geometry, dtype):
    given = problem(*geometry, dtype=dtype)
    wide, there = (
        [change(g) if isinstance(g, torch.Tensor) else g for g in given]
        for change in (torch.Tensor.double, torch.Tensor.cuda)
    )
    got, again = everything(COMPILED, *there), everything(COMPILED, *there)
    assert_close([g.cpu() for g in got], everything(PLAIN, *wide), dtype)
    assert all(torch.equal(one, other) for one, other in zip(got, again, strict=True))


def test_the_same_numbers_whatever_the_threads():
    given = problem(40, 4096, 8, 16, dtype=torch.float32)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(everything(COMPILED, *given))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_opcheck():
    delta, tangent, *rows, gamma, groups, repeat = problem(6, 6, 3, 3)
    opcheck(OPS.normalisation_vjp, (delta, *rows, gamma, groups, repeat))
    opcheck(OPS.normalisation_jvp, (tangent, *rows, None, groups, repeat))
    opcheck(OPS.normalisation_second, (delta, tangent, *rows, gamma, groups, repeat))
    opcheck(OPS.normalisation_parameters, (delta, *rows, groups, repeat))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inverse": torch.ones(5, dtype=torch.float64)}, "inverse must be 6"),
        ({"gamma": torch.ones(5, dtype=torch.float64)}, "gamma must be 6"),
        ({"groups": 4}, "has no 4 groups"),
        ({"delta": torch.ones(6, 6)}, "delta must have the shape, dtype and device of x"),
        ({"x": torch.ones(6, 12, dtype=torch.float64)[:, ::2]}, "x must be contiguous rows"),
    ],
)
@pytest.mark.parametrize("vjp", [OPS.normalisation_vjp, TRITON_VJP], ids=["C++", "Triton"])
def test_bad_arguments(change, message, vjp):
    names = ("delta", "tangent", "x", "mean", "inverse", "gamma", "groups", "repeat")
    given = dict(zip(names, problem(6, 6, 3, 3), strict=True)) | change
    del given["tangent"]
    with pytest.raises(RuntimeError, match=message):
        vjp(*given.values())
