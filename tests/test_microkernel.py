"""Products of float32 matrices in flat graphs: which ones are made by wgan_fast::product."""

import pytest
import torch

from wgan_fast.flat_graph import trace
from wgan_fast.microkernel import PRODUCT
from wgan_fast.ops.registration import EXTENSION_MISSING

pytestmark = pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here")


def product(a, b):
    return [a @ b]


def transposed(a, b):
    return [b.t() @ a.t()]


def added(a, b):
    return [torch.addmm(b[0], a, b)]


def scaled(a, b):
    return [torch.addmm(b[0], a, b, beta=0.5, alpha=2)]


def taken(function, *arguments):
    """Whether a graph's product is made by ours; and that it is the function's."""
    graph = trace(function, [], arguments)
    others = [torch.randn_like(one) for one in arguments]
    for found, expected in zip(graph(*others), function(*others), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    return PRODUCT in graph.ops


@pytest.mark.parametrize("function", [product, transposed, added])
def test_what_is_taken(function):
    assert taken(function, torch.randn(200, 64), torch.randn(64, 64))


def test_what_is_left_to_pytorch():
    a, b = torch.randn(200, 64), torch.randn(64, 64)
    assert not taken(scaled, a, b)
    assert not taken(product, a.double(), b.double())
    assert not taken(product, torch.randn(5000, 15), torch.randn(15, 64))  # thin
    assert not taken(product, torch.randn(32, 64), torch.randn(64, 64))  # small


@pytest.mark.parametrize("to_the_bit", [False, True])
def test_to_the_bit(to_the_bit):
    arguments = torch.randn(200, 64), torch.randn(64, 64)
    graph = trace(product, [], arguments, to_the_bit=to_the_bit)
    assert (PRODUCT in graph.ops) is not to_the_bit
    if to_the_bit:
        assert torch.equal(graph(*arguments)[0], product(*arguments)[0])


def test_results_lie_in_memory_as_pytorchs_do():
    a, b = torch.randn(200, 64), torch.randn(64, 64)
    for function in (product, transposed, added):
        (found,), (expected,) = trace(function, [], [a, b])(a, b), function(a, b)
        assert found.stride() == expected.stride()


def test_by_inductor():
    a, b = torch.randn(200, 64), torch.randn(64, 64)
    graph = trace(added, [], [a, b])
    graph.compile([a, b])
    (found,) = graph(a, b)
    torch.testing.assert_close(found, added(a, b)[0], rtol=1e-4, atol=1e-4)
