"""Who differentiates twice comes back to the moment of the call: its buffers, its samples."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm

import wgan_fast
from tests.double_backward.oracle import error, samples
from wgan_fast.double_backward import merged

SHAPE = (6, 5)


class Counting(nn.Module):
    """A factor that grows with every call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("factors", torch.ones(2, dtype=torch.float64))

    def forward(self, x):
        self.factors[0] += 0.3
        return x * self.factors[0].clone()


STATES = {
    "spectral norm": lambda: nn.Sequential(spectral_norm(nn.Linear(5, 8)), nn.Tanh()),
    "a view of a buffer": lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), Counting()),
}
LOSSES = {"critic_loss": wgan_fast.critic_loss, "gradient_penalty": wgan_fast.gradient_penalty}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_buffers_that_change_in_every_call(state, loss):
    critic = nn.Sequential(state(), nn.Linear(8, 1)).double()
    real, fake, alpha = samples(SHAPE)

    def of(backend):
        model = copy.deepcopy(critic)
        parameters = list(model.parameters())
        value = loss(model, real, fake, alpha=alpha, backend=backend)
        left = copy.deepcopy(model.state_dict())
        loss(model, real, fake, alpha=alpha, backend=backend)  # and go on changing
        now = copy.deepcopy(model.state_dict())
        first = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True)
        total = sum(g.square().sum() for g in first if g is not None)
        second = torch.autograd.grad(total, parameters, allow_unused=True)
        for name, kept in model.state_dict().items():
            assert torch.equal(kept, now[name])
        return value, first, second, left

    value, first, second, left = of("auto")
    expected, firsts, seconds, lefts = of("autograd")
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    assert error(first, firsts) < 1e-10
    assert error(second, seconds) < 1e-9
    for name, buffer in left.items():
        torch.testing.assert_close(buffer, lefts[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("which", "fits"),
    [("real", 8 << 20), ("fake", 8 << 20), ("alpha", 8 << 20), ("real", 1), ("fake", 1)],
    ids=str,
)
def test_samples_that_are_written_over(which, fits, monkeypatch):
    """In one batch, or in three calls, of which none needs α again."""
    monkeypatch.setattr(merged, "_FITS_THE_CACHE", fits)
    critic = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    real, fake, alpha = samples(SHAPE)
    for _ in range(2):
        value = wgan_fast.critic_loss(critic, real, fake, alpha=alpha)
    {"real": real, "fake": fake, "alpha": alpha}[which].normal_()
    parameters = list(critic.parameters())
    torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    with pytest.raises(RuntimeError, match="the samples were modified after the loss"):
        torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True)


def test_samples_of_inference_mode_count_no_changes():
    critic = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    with torch.inference_mode():
        real, fake, alpha = samples(SHAPE)
    wgan_fast.critic_loss(critic, real, fake, alpha=alpha).backward()
    assert all(p.grad is not None for p in critic.parameters())
