"""The engine's peak memory next to double backward's, and what it writes over on the way."""

import pytest
import torch
from torch import nn

import wgan_fast
from tests.double_backward.critics import Apply
from tests.double_backward.oracle import loss_error, penalty_error
from wgan_fast import reference
from wgan_fast.double_backward import few_channels
from wgan_fast.live_memory import peak_bytes
from wgan_fast.models import DCGANCritic

CPU = torch.device("cpu")
SHAPE = (6, 4)


@pytest.mark.parametrize("at", ["mix", "real", "both"])
def test_a_convolutional_critic_takes_less(at):
    critic = DCGANCritic(32, channels=32, image_channels=1)
    real, fake = torch.randn(2, 64, 1, 32, 32)
    alpha = torch.rand(64)

    def ours():
        options = {"alpha": alpha} if at == "mix" else {"at": at, "target": 0.0}
        wgan_fast.critic_loss(critic, real, fake, weight=5.0, **options).backward()

    def theirs():
        if at == "mix":
            loss = reference.critic_loss(critic, real, fake, alpha)
        else:
            loss = reference.critic_loss_at_samples(critic, real, fake, at)
        loss.backward()

    peaks = []
    for step in (ours, theirs):
        critic.zero_grad()
        step()  # what is learnt in the first call is no part of it
        critic.zero_grad()
        peaks.append(peak_bytes(step, CPU))
    assert peaks[0] <= 0.85 * peaks[1]


def test_images_of_few_channels_hold_no_more_than_themselves():
    maps, weight = torch.randn(2, 8, 16, 16), torch.randn(8, 3, 4, 4)
    rest = [2, 2], [1, 1], [1, 1], True, [0, 0], 1
    images = few_channels.spread(maps, weight, (32, 32), rest)
    expected = nn.functional.conv_transpose2d(maps, weight, stride=2, padding=1)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)
    assert images.untyped_storage().nbytes() == images.numel() * images.element_size()


def chain(parts, x):
    for part in parts:
        x = part(x).relu()
    return x.sum(1)


def two_paths(parts, x):
    """A tangent that two layers need, one of them behind an activation."""
    x = parts[0](x)
    return (parts[1](x.relu()) + parts[2](x) + x.mean(1, keepdim=True)).relu().sum(1)


def activated_twice(parts, x):
    x = parts[0](x)
    return parts[1](torch.nn.functional.leaky_relu(x, 0.2) * 2 - x.relu()).sum(1)


def viewed_before(parts, x):
    """The view's tangent is memory of the one that the activation would write over."""
    x = parts[0](x)
    view = x.view(-1, 2, 2)
    both = parts[1](nn.functional.leaky_relu(x, 0.2)) + parts[2](view.flatten(1))
    return nn.functional.leaky_relu(both, 0.2).sum(1)


@pytest.mark.parametrize("forward", [chain, two_paths, activated_twice, viewed_before])
def test_tangents_are_written_over_where_nobody_else_needs_them(forward):
    critic = Apply(forward, *(nn.Linear(4, 4) for _ in range(3))).double()
    assert penalty_error(critic, SHAPE) < 1e-10
    assert loss_error(critic, SHAPE, "explicit") < 1e-10
