"""Large curved critics, whose loss comes from three calls: autograd's numbers, and from graphs."""

import copy

import pytest
import torch
from torch import nn

import wgan_fast
from tests.double_backward.critics import random_critic
from tests.double_backward.oracle import error, gradients, own_movement, same_start, samples
from wgan_fast import reference
from wgan_fast.critic_objective import loss_settings
from wgan_fast.double_backward import calls_apart, merged, replays
from wgan_fast.objectives import NAMED
from wgan_fast.penalties import check_penalty

SHAPE = (6, 3)


@pytest.fixture
def apart(monkeypatch):
    """Every curved critic is called three times from its second step on; how often by a graph."""
    counts = {"calls": 0, "graphs": 0}
    loss, replay = calls_apart.critic_loss, replays._Replayed.__call__

    def counting(*arguments):
        counts["calls"] += 1
        return loss(*arguments)

    def counting_graphs(self, critic, arguments):
        done = replay(self, critic, arguments)
        counts["graphs"] += done is not None
        return done

    monkeypatch.setattr(merged, "_FITS_THE_CACHE", 1)
    monkeypatch.setattr(replays, "CALLS_BEFORE", 2)
    monkeypatch.setattr(calls_apart, "critic_loss", counting)
    monkeypatch.setattr(replays._Replayed, "__call__", counting_graphs)
    return counts


def curved(*layers):
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), *layers, nn.Linear(8, 1)).double()


def difference(critic, real, fake, alpha, **options):
    """How far value and gradients are from autograd's, where both start from the same."""

    def of(backend):
        loss = wgan_fast.critic_loss(
            critic, real, fake, alpha=alpha, backend=backend, weight=3.0, **options
        )
        return loss.detach(), gradients(loss, critic)

    value, mine = same_start(critic, lambda: of("auto"))
    expected, others = same_start(critic, lambda: of("autograd"))
    return max(abs(value - expected).item(), error(mine, others))


@pytest.mark.parametrize("drift", [0.0, 0.1])
@pytest.mark.parametrize("objective", [*NAMED, lambda real, fake: (fake - real).square().mean()])
@pytest.mark.parametrize("penalty", ["gp", "lp", "div"])
def test_every_loss(penalty, objective, drift, apart):
    critic = curved(nn.LayerNorm(8))
    for _ in range(5):
        options = {"penalty": penalty, "objective": objective, "drift": drift}
        assert difference(critic, *samples(SHAPE), **options) < 1e-10
    assert apart["calls"] >= 2
    # One of them to see that it agrees.
    assert apart["graphs"] == (0 if callable(objective) else 3)


def test_random_critics(apart):
    """Dropout, statistics, labels and all: the calls draw and count in the textbook's order."""
    taken = 0
    for seed in range(40_000, 40_040):
        torch.manual_seed(seed)
        critic, (_, *sample) = random_critic(seed)
        critic, shape = critic.double(), (SHAPE[0], *sample)
        apart["calls"] = 0
        start = torch.get_rng_state()
        for _ in range(4):
            data = samples(shape)
            try:
                off = difference(critic, *data)
            except RuntimeError as failure:
                if "is not implemented" not in str(failure):  # autograd's
                    raise
                break
            if off >= 1e-9:
                torch.set_rng_state(start)
                assert own_movement(critic, shape) >= off / 100, seed
        taken += apart["calls"] > 0
    assert taken >= 8
    assert apart["graphs"] >= 8


class OneOfTwo(nn.Module):
    """Another layer in every call."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 8) for _ in range(2))
        self.last = nn.Linear(8, 1)
        self.seen = []

    def forward(self, x):
        self.seen.append(len(self.seen) % 2)
        return self.last(self.layers[self.seen[-1]](x).tanh())


def test_parameters_that_one_call_alone_uses():
    critic = OneOfTwo().double()
    real, fake, alpha = samples(SHAPE)
    settings = loss_settings(check_penalty("gp"), 3.0, "wasserstein", 0.0)
    for start in (0, 1):
        critic.seen[:] = [0] * start
        with torch.no_grad():
            done = calls_apart.critic_loss(critic, real, fake, alpha, settings)
        mine = dict(zip(map(id, done.leaves), done.gradients, strict=True))
        critic.seen[:] = [0] * start
        loss = reference.critic_loss(critic, real, fake, alpha, weight=3.0)
        torch.testing.assert_close(done.value, loss.detach())
        for parameter in critic.parameters():
            (expected,) = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)
            found = mine.get(id(parameter))
            assert (found is None) == (expected is None)
            if expected is not None:
                torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_frozen_parameter_and_a_weight_that_changes(apart):
    critic = curved()
    critic[0].bias.requires_grad_(False)
    for weight in (10.0, 2.0, 0.0, 5.0):
        real, fake, alpha = samples(SHAPE)
        loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, weight=weight)
        expected = reference.critic_loss(critic, real, fake, alpha, weight=weight)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        trained = [p for p in critic.parameters() if p.requires_grad]
        pair = (torch.autograd.grad(one, trained, allow_unused=True) for one in (loss, expected))
        assert error(*pair) < 1e-10
    assert apart["graphs"] == 2


def test_differentiated_twice(apart):
    critic = curved()
    for _ in range(5):
        real, fake, alpha = samples(SHAPE)
        twice = []
        for backend in ("auto", "autograd"):
            loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend=backend)
            first = torch.autograd.grad(loss, list(critic.parameters()), create_graph=True)
            total = sum(g.square().sum() for g in first)
            twice.append(torch.autograd.grad(total, list(critic.parameters()), allow_unused=True))
        for one, other in zip(*twice, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_no_gradient_is_lost_to_float16(apart):
    """There the engine keeps cotangents in range, which autograd's part of three calls would not:
    such a critic stays merged."""
    critic = curved().half()
    real, fake = torch.randn(2, *SHAPE).half()
    for _ in range(3):
        wgan_fast.critic_loss(critic, real, fake)
    assert apart["calls"] == 0


def test_a_copy_takes_the_same_way(apart):
    critic = curved()
    real, fake, alpha = samples(SHAPE)
    for one in (critic, copy.deepcopy(critic)):
        for _ in range(4):
            assert difference(one, real, fake, alpha) < 1e-10
    assert apart["graphs"] == 4
