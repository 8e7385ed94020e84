"""Convolutions run channels_last on a CPU; a critic that could notice is called without."""

import pytest
import torch
from torch import nn

import wgan_fast
from tests.conftest import SEED
from tests.double_backward.critics import CRITICS, Apply
from tests.double_backward.oracle import (
    errors_of,
    loss_error,
    penalty_error,
)
from tests.double_backward.test_exactness import RANDOM
from wgan_fast.double_backward import memory_format
from wgan_fast.double_backward.errors import Unsupported
from wgan_fast.double_backward.record import record
from wgan_fast.double_backward.rules import rule_of

IMAGES = [name for name, (_, shape) in CRITICS.items() if len(shape) == 4]
SHAPE = (6, 3, 8, 8)


@pytest.fixture(autouse=True)
def in_float64(monkeypatch):
    """As oneDNN has no float64, these critics would not be rearranged, and the oracle is that."""
    monkeypatch.setattr(memory_format, "DTYPES", {torch.float64})


def convolutions(*rest):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), *rest).double()


def rearranged(critic):
    """Whether the convolutions of a recording ran channels_last."""
    x = torch.randn(SHAPE, dtype=torch.float64)
    nodes = record(critic, x, rule_of).nodes
    layout = torch.channels_last
    return nodes[1].rows[0].is_contiguous(memory_format=layout)


def errors(critic):
    yield penalty_error(critic, SHAPE)
    yield loss_error(critic, SHAPE, "explicit")


@pytest.mark.parametrize("name", IMAGES)
def test_same_numbers(name):
    make, shape = CRITICS[name]
    critic = make().double()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert penalty_error(critic, shape) < 1e-10
        if not any(word in name for word in RANDOM):
            assert loss_error(critic, shape, "explicit") < 1e-10


def test_random_critics():
    compared = list(errors_of(range(SEED, SEED + 60)))
    assert len(compared) >= 50
    assert max(compared)[0] < 1e-10, max(compared)[1]


def test_a_plain_critic_is_rearranged_and_its_gradients_are_not():
    critic = convolutions(nn.Conv2d(4, 5, 3), nn.Flatten(), nn.LazyLinear(1, dtype=torch.float64))
    critic(torch.randn(SHAPE, dtype=torch.float64))
    assert rearranged(critic)
    assert max(errors(critic)) < 1e-10
    wgan_fast.critic_loss(critic, *torch.randn(2, *SHAPE, dtype=torch.float64)).backward()
    assert all(p.grad.stride() == p.stride() for p in critic.parameters())


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm((4, 6, 6)), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)], ids=str
)
def test_normalisations_by_sample_stay_as_they_are(norm):
    critic = convolutions(norm.double(), nn.Conv2d(4, 1, 6).double(), nn.Flatten(0))
    assert not rearranged(critic)
    assert max(errors(critic)) < 1e-10


def test_a_view_that_needs_contiguous_memory():
    critic = Apply(
        lambda parts, x: parts[1](parts[0](x).view(-1, 4 * 6 * 6)),
        convolutions(),
        nn.Linear(4 * 6 * 6, 1).double(),
    )
    assert rearranged(critic)
    assert max(errors(critic)) < 1e-10


def test_writing_into_memory_behind_such_a_view_is_noticed():
    def forward(parts, x):
        x = parts[0](x)
        rows = x.view(-1, 4 * 6 * 6)
        x.mul_(2)  # the rows are twice as large now
        return parts[1](rows)

    critic = Apply(forward, convolutions(), nn.Linear(4 * 6 * 6, 1).double())
    with pytest.raises(Unsupported, match="another view"):
        penalty_error(critic, SHAPE)


def test_reading_by_strides_is_noticed():
    def forward(parts, x):
        x = parts[0](x)
        return parts[1](x.as_strided((x.shape[0], 144), (144, 1)))

    critic = Apply(forward, convolutions(), nn.Linear(144, 1).double())
    assert not rearranged(critic)
    assert penalty_error(critic, SHAPE) < 1e-10


def test_an_operator_of_the_critics_own_gets_its_own_strides():
    seen = []

    @torch.library.custom_op("wgan_fast_tests::double_it", mutates_args=())
    def double_it(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.is_contiguous())
        return 2 * x

    double_it.register_autograd(lambda ctx, delta: 2 * delta)
    critic = Apply(
        lambda parts, x: parts[1](double_it(parts[0](x)).flatten(1)),
        convolutions(),
        nn.Linear(4 * 6 * 6, 1).double(),
    )
    assert penalty_error(critic, SHAPE) < 1e-10
    assert seen
    assert all(seen)


def test_an_error_of_the_critics_own_is_raised():
    def forward(parts, x):
        raise KeyError(parts[0](x).shape[1])

    critic = Apply(forward, convolutions())
    with pytest.raises(KeyError):
        wgan_fast.gradient_penalty(critic, *torch.randn(2, *SHAPE, dtype=torch.float64))
