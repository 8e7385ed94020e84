"""Replays' products of float32 matrices: which ones are made by wgan_fast::product."""

import pytest
import torch

from wgan_fast.flat_graph import trace
from wgan_fast.microkernel import PRODUCT, factors_of
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
    assert PRODUCT not in graph.ops  # for Inductor, PyTorch's own
    return any(factors_of(node) is not None for node in graph.module.graph.nodes)


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
def test_to_the_bit(to_the_bit, monkeypatch):
    asked = []
    monkeypatch.setattr("wgan_fast.replay.factors_of", lambda node: asked.append(node))
    trace(product, [], [torch.randn(200, 64), torch.randn(64, 64)], to_the_bit=to_the_bit)
    assert bool(asked) is not to_the_bit
