"""Every smooth elementwise rule by itself: both derivatives, and in how many passes over memory."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_fast.double_backward.rules.elementwise import RULES, Smooth

aten = torch.ops.aten
OTHERS = {
    aten.elu.default: [((), {}), ((0.7, 1.3, 1.5), {})],
    aten.gelu.default: [((), {}), ((), {"approximate": "tanh"})],
    aten.softplus.default: [((), {}), ((2.0, 1.5), {})],
    aten.pow.Tensor_Scalar: [((2,), {}), ((3.5,), {})],
}
CASES = [
    (op, args, kwargs)
    for op, rule in RULES.items()
    if isinstance(rule, Smooth)
    for args, kwargs in OTHERS.get(op, [((), {})])
]
ONE_KERNEL = ("tanh", "sigmoid", "silu", "gelu", "elu", "softplus", "exp", "log")
cases = pytest.mark.parametrize(("op", "args", "kwargs"), CASES, ids=str)


def recorded(op, args, kwargs, x):
    """The rule and its node after a forward pass; the inputs are positive, for roots and powers."""
    node = SimpleNamespace()
    RULES[op].record(node, (x, *args), kwargs, op(x, *args, **kwargs))
    return RULES[op], node


@cases
def test_both_derivatives(op, args, kwargs):
    x = torch.randn(5, 7, dtype=torch.float64)
    if op._schema.name.removeprefix("aten::") in ("log", "sqrt", "rsqrt", "reciprocal", "pow"):
        x = x.abs() + 0.5
    delta, tangent = torch.randn(2, 5, 7, dtype=torch.float64)
    rule, node = recorded(op, args, kwargs, x)
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(op(leaf, *args, **kwargs).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first * delta * tangent).sum(), leaf)
    first = first.detach()
    given = [tensor.clone() for tensor in (delta, tangent, node.rows[0])]
    torch.testing.assert_close(rule.vjp(node, delta, [True])[0], delta * first)
    torch.testing.assert_close(rule.jvp(node, [tangent]), tangent * first)
    torch.testing.assert_close(rule.second(node, delta, [tangent], [True])[0], second)
    for tensor, before in zip((delta, tangent, node.rows[0]), given, strict=True):
        assert torch.equal(tensor, before)


class Counted(TorchDispatchMode):
    """The ops that run."""

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.ops.append(op)
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("op", "args", "kwargs"),
    [case for case in CASES if case[0]._schema.name.removeprefix("aten::") in ONE_KERNEL],
    ids=str,
)
def test_a_slope_is_multiplied_in_one_pass(op, args, kwargs):
    x, delta = torch.rand(2, 5, 7)
    rule, node = recorded(op, args, kwargs, x)
    with Counted() as counted:
        rule.vjp(node, delta, [True])
        rule.jvp(node, [delta])
    assert len(counted.ops) == 2
