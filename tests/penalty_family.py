"""What the tests of the penalty family share: critics, what is drawn, and the references."""

import pytest
import torch
from torch import nn

from tests.double_backward.oracle import error, gradients
from wgan_fast import reference
from wgan_fast.penalties import NAMED

BATCH = 6


def mlp():
    layers = nn.Linear(5, 7), nn.LayerNorm(7), nn.LeakyReLU(0.2), nn.Linear(7, 6), nn.SiLU()
    return nn.Sequential(*layers, nn.Linear(6, 1)).double(), (BATCH, 5)


def convolutional():
    layers = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.LeakyReLU(0.2)
    more = nn.Conv2d(4, 3, 3, stride=2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(27, 1)
    return nn.Sequential(*layers, *more).double(), (BATCH, 2, 7, 7)


def seeing_each_other():
    layers = nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 1)
    return nn.Sequential(*layers).double(), (BATCH, 5)


CRITICS = {"mlp": mlp, "convolutional": convolutional}


def steep(critic, shape):
    """The critic with slopes around 2, so that a one-sided penalty has something to punish."""
    norms = reference.dual_norms(critic, torch.randn(shape, dtype=torch.float64))
    with torch.no_grad():
        critic[-1].weight.mul_(2 / norms.mean())
    return critic


def draws(shape, name):
    """(real, fake, α, noise, what makes wgan_fast draw the same)."""
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    fake = 0.5 * fake + 0.3
    if NAMED[name].at not in ("mix", "dragan"):
        return real, fake, None, None, {}
    seed = torch.Generator().manual_seed(torch.randint(2**31, ()).item())
    noise = None
    if NAMED[name].at == "dragan":
        noise = torch.rand(shape, dtype=torch.float64, generator=seed.clone_state())
    after = seed.clone_state()
    if noise is not None:
        torch.rand(shape, dtype=torch.float64, generator=after)
    alpha = torch.rand(BATCH, dtype=torch.float64, generator=after)
    return real, fake, alpha, noise, {"generator": seed}


def expected_penalty(name, critic, real, fake, alpha, noise):
    some = torch.zeros(BATCH, dtype=torch.float64) if alpha is None else alpha
    return reference.family_penalty(name, critic, real, fake, some, noise)


def expected_loss(name, critic, real, fake, alpha, noise, weight):
    some = torch.zeros(BATCH, dtype=torch.float64) if alpha is None else alpha
    return reference.family_loss(name, critic, real, fake, some, noise, weight)


def assert_agree(loss, expected, critic, tolerance=1e-10):
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance, abs=tolerance)
    assert error(gradients(loss, critic), gradients(expected, critic)) < tolerance
