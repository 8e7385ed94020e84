"""``clip_weights_``: which parameters it takes, and the fraction that it reports."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from tests.harness import DTYPES
from wgan_fast import clip_weights_

BOUND = 0.05


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.linear = nn.Linear(6, 6)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 6, 1)
        self.batchnorm = nn.BatchNorm1d(6)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.scale = nn.Parameter(torch.ones(1))
        for parameter in self.parameters():  # every one has numbers outside
            nn.init.uniform_(parameter, 1.0, 2.0)


def clipped(critic):
    """The names of the parameters that lie within the bounds; those that moved not at all stay."""
    inside = {n for n, p in critic.named_parameters() if p.abs().max() <= BOUND + 1e-7}
    assert all(p.min() >= 1 for n, p in critic.named_parameters() if n not in inside)
    return inside


ALL = {name for name, _ in Critic().named_parameters()}
NORMS = {name for name in ALL if "norm" in name}
BIASES = {name for name in ALL if name.endswith("bias")}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ALL),
        ({"exclude": (nn.LayerNorm, nn.BatchNorm1d)}, ALL - NORMS),
        ({"exclude": nn.LayerNorm}, ALL - {name for name in ALL if ".norm." in name}),
        ({"exclude": nn.BatchNorm2d}, ALL),
        ({"exclude": "*norm*"}, ALL - NORMS),
        ({"exclude": ["*.bias", nn.LayerNorm]}, {n for n in ALL - BIASES if ".norm." not in n}),
        ({"include": "scale"}, {"scale"}),
        ({"include": ("blocks.[0].*", "first.weight")},
         {"first.weight", *(name for name in ALL if name.startswith("blocks.0"))}),
        ({"include": Block}, {name for name in ALL if name.startswith("blocks")}),
        ({"include": Block, "exclude": "*.bias"},
         {name for name in ALL - BIASES if name.startswith("blocks")}),
        ({"include": lambda name, parameter: parameter.dim() > 1},
         {"first.weight", "blocks.0.linear.weight", "blocks.1.linear.weight"}),
        ({"exclude": lambda name, parameter: name in NORMS}, ALL - NORMS),
        ({"include": {"scale", "first.bias"}}, {"scale", "first.bias"}),
        ({"exclude": ()}, ALL),
    ],
)  # fmt: skip
def test_filters(filters, expected):
    critic = Critic()
    critic.batchnorm.running_mean.fill_(7.0)
    assert clip_weights_(critic, BOUND, **filters) is None
    assert clipped(critic) == expected
    assert torch.equal(critic.batchnorm.running_mean, torch.full((6,), 7.0))


def test_a_type_matches_a_parametrised_layer():
    critic = nn.Sequential(weight_norm(nn.Linear(3, 3)), nn.PReLU(init=1.0))
    before = [parameter.detach().clone() for parameter in critic[0].parameters()]
    clip_weights_(critic, 0.01, exclude=nn.Linear)
    assert all(torch.equal(p, b) for p, b in zip(critic[0].parameters(), before, strict=True))
    assert critic[1].weight.item() == pytest.approx(0.01)


@pytest.mark.parametrize("excluded", ["0.weight", "1.weight"])
def test_a_shared_parameter_is_excluded_by_any_of_its_names(excluded):
    critic = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    critic[1].weight = critic[0].weight
    nn.init.constant_(critic[0].weight, 1.0)
    clip_weights_(critic, 0.01, exclude=excluded)
    assert critic[0].weight.min() == 1
    assert critic[1].bias.abs().max() <= 0.01


@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        ({"include": 3}, TypeError, "include: expected names, module types or a predicate"),
        ({"exclude": [nn.LayerNorm, 3]}, TypeError, "exclude: expected names, .* got 3"),
        ({"exclude": torch.Tensor}, TypeError, "exclude: expected names, module types"),
        ({"include": "no such name"}, ValueError, "include, exclude: expected them to leave"),
        ({"exclude": "*"}, ValueError, "include, exclude: expected them to leave"),
    ],
)
def test_refuses_filters_that_are_none(filters, error, message):
    critic = Critic()
    with pytest.raises(error, match=message):
        clip_weights_(critic, BOUND, **filters)
    assert clipped(critic) == set()


def test_refuses_filters_without_names():
    parameters = list(Critic().parameters())
    with pytest.raises(ValueError, match="include, exclude: expected a module"):
        clip_weights_(parameters, BOUND, exclude="*.bias")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fraction_at_the_bounds(dtype):
    """As counted in float64 before; also for 0.01, which no short type holds."""
    tensors = [torch.randn(shape).to(dtype) for shape in ((40, 50), (0,), (), (7,))]
    tensors[3][0] = math.nan
    bound = torch.tensor(0.01, dtype=dtype).double()
    outside = sum((t.double().abs() >= bound).sum().item() for t in tensors)
    fraction = clip_weights_(tensors, 0.01, return_fraction=True)
    assert fraction.shape == ()
    assert fraction.dtype == torch.float32
    assert not fraction.requires_grad
    assert fraction.item() == pytest.approx(outside / 2008)


def test_fraction_of_what_is_clipped_alone():
    critic = Critic()
    assert clip_weights_(critic, 1.5, include="scale", return_fraction=True) in (0, 1)
    assert clip_weights_(critic, BOUND, exclude=Block, return_fraction=True) == 1
    assert clip_weights_(critic, 10.0, return_fraction=True) == 0


def test_fraction_of_nothing():
    with pytest.raises(ValueError, match="return_fraction: expected at least one number"):
        clip_weights_([], 0.1, return_fraction=True)
