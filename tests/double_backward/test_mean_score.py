"""Large curved critics, whose loss comes from three calls: autograd's numbers, and from graphs."""

import copy
import itertools
import random
from collections import deque

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import wgan_fast
from tests.double_backward.critics import random_critic
from tests.double_backward.oracle import error, gradients, own_movement, same_start, samples
from wgan_fast import reference, routes
from wgan_fast.double_backward import merged, replays
from wgan_fast.objectives import NAMED

SHAPE = (6, 3)


@pytest.fixture
def apart(monkeypatch):
    """Every curved critic is called three times from its second step on; how often by a graph."""
    counts = {"calls": 0, "graphs": 0}
    of_one_call, replay = routes.of_one_call, replays._Replayed.__call__

    def counting(*arguments):
        counts["calls"] += 1
        return of_one_call(*arguments)

    def counting_graphs(self, critic, arguments):
        done = replay(self, critic, arguments)
        counts["graphs"] += done is not None
        return done

    monkeypatch.setattr(merged, "_FITS_THE_CACHE", 1)
    monkeypatch.setattr(replays, "CALLS_BEFORE", 2)
    monkeypatch.setattr(routes, "of_one_call", counting)
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
@pytest.mark.parametrize("objective", [*NAMED])
@pytest.mark.parametrize("penalty", ["gp", "lp", "div"])
def test_every_loss(penalty, objective, drift, apart):
    critic = curved(nn.LayerNorm(8))
    for _ in range(6):
        options = {"penalty": penalty, "objective": objective, "drift": drift}
        assert difference(critic, *samples(SHAPE), **options) < 1e-10
    own = objective == "wasserstein" and not drift
    assert apart["calls"] == (10 if own else 0)
    # From the third call on, one of them to see that it agrees; of the penalty by itself anyway.
    assert apart["graphs"] == 4 + (own and 9)


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
    assert apart["graphs"] >= 16


class OneOfTwo(nn.Module):
    """Any of its two layers in every call, as layers are dropped, or one that it is told."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 8) for _ in range(2))
        self.last = nn.Linear(8, 1)
        self.told = deque()  # no list, whose numbers would be a state

    def forward(self, x):
        layer = self.told.popleft() if self.told else random.randrange(2)
        return self.last(self.layers[layer](x).tanh())


def test_each_call_goes_its_own_way(apart):
    critic = OneOfTwo().double()
    parameters = list(critic.parameters())
    for step in range(12):
        critic.told = deque([0] * 9 * (step < 4))  # in the first steps, what it is can be learnt
        real, fake, alpha = samples(SHAPE)
        loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, weight=3.0)
        mine = torch.autograd.grad(loss, parameters, allow_unused=True)

        def is_of(layers, loss=loss, mine=mine, data=(real, fake, alpha)):
            critic.told = deque(layers)
            expected = reference.critic_loss(critic, *data, weight=3.0)
            others = torch.autograd.grad(expected, parameters, allow_unused=True)
            return torch.isclose(loss, expected, rtol=1e-12) and error(mine, others) < 1e-10

        assert sum(map(is_of, itertools.product(range(2), repeat=3))) == 1
    assert apart["calls"] == 22
    assert 0 < apart["graphs"] < 30


def test_hooks_see_one_gradient(apart):
    critic = curved()
    seen = []
    critic[0].weight.register_hook(lambda g: seen.append(g.clone()) or 2 * g)
    for step in range(6):
        real, fake, alpha = samples(SHAPE)
        wgan_fast.critic_loss(critic, real, fake, alpha=alpha).backward()
        assert len(seen) == step + 1
        plain = copy.deepcopy(critic)
        plain[0].weight._backward_hooks = None
        plain.zero_grad()
        reference.critic_loss(plain, real, fake, alpha, weight=10.0).backward()
        torch.testing.assert_close(seen[-1], plain[0].weight.grad, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(critic[0].weight.grad, 2 * seen[-1], rtol=1e-12, atol=1e-12)
        critic.zero_grad()
    assert apart["graphs"] >= 6


def test_a_weight_that_is_computed_outside(apart):
    """As a hypernetwork's: the three calls' gradients come to it together, and go on from there."""
    seed = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    last = nn.Linear(8, 1).double()
    weight = [seed]

    def critic(x):
        return last((x @ weight[0].t()).tanh())

    for _ in range(6):
        real, fake, alpha = samples(SHAPE)
        pair = []
        for backend in ("auto", "autograd"):
            weight[0] = seed.exp()
            loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend=backend)
            loss.backward()
            pair.append(seed.grad)
            seed.grad = None
        torch.testing.assert_close(*pair, rtol=1e-10, atol=1e-12)
    assert apart["calls"] > 0


@pytest.mark.parametrize("of", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_cached_parametrizations(of, apart):
    critic = curved()
    of(critic[0])
    for _ in range(6):
        real, fake, alpha = samples(SHAPE)
        with parametrize.cached():
            wgan_fast.critic_loss(critic, real, fake, alpha=alpha).backward()
        expected = reference.critic_loss(critic, real, fake, alpha, weight=10.0)
        expected = torch.autograd.grad(expected, list(critic.parameters()))
        for parameter, gradient in zip(critic.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-11)
        critic.zero_grad()
    assert apart["graphs"] >= 6


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
    assert apart["graphs"] >= 4


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


def test_explicit_refuses_to_be_differentiated_twice(apart):
    critic = curved()
    for _ in range(2):
        real, fake, _ = samples(SHAPE)
        loss = wgan_fast.critic_loss(critic, real, fake, backend="explicit")
    with pytest.raises(RuntimeError, match='backend="auto" or "autograd"'):
        torch.autograd.grad(loss, list(critic.parameters()), create_graph=True)
    assert apart["calls"] == 2


@pytest.mark.parametrize("size", [1.0, 3e4])
def test_no_gradient_is_lost_to_float16(size, apart):
    """A mean's cotangents 1/B, times small weights, would not be numbers of float16 any more."""
    torch.manual_seed(3)
    critic = curved()
    with torch.no_grad():
        critic[-1].weight.mul_(1e-4 * size)
    half = copy.deepcopy(critic).half()
    real, fake = torch.randn(2, 512, 3)
    alpha = torch.rand(512)
    for _ in range(4):
        mine = wgan_fast.critic_loss(half, real.half(), fake.half(), alpha=alpha.half(), weight=0.1)
        mine = torch.autograd.grad(mine, list(half.parameters()))
    exact = real.half().double(), fake.half().double(), alpha.half().double()
    wide = copy.deepcopy(half).double()
    expected = reference.critic_loss(wide, *exact, weight=0.1)
    expected = torch.autograd.grad(expected, list(wide.parameters()))
    for gradient, other in zip(mine, expected, strict=True):
        assert (gradient - other).norm() <= 0.02 * other.norm() + 1e-6 * size
    assert apart["calls"] == 6


def test_a_score_that_leaves_the_input_out(apart, monkeypatch):
    """In one of the three calls: it counts as a call, and once."""
    monkeypatch.setattr(replays, "CALLS_BEFORE", 100)  # by which Python would be looked at first
    critic = curved(nn.LayerNorm(8))
    bias = nn.Parameter(torch.tensor([0.7], dtype=torch.float64))
    calls, dropped = [], ()

    def f(x):
        calls.append(len(calls))
        return bias.expand(len(x), 1) * 2 if calls[-1] in dropped else critic(x) * bias

    parameters = [*critic.parameters(), bias]
    for step in range(4):
        dropped = (0,) if step > 1 else ()  # in the first steps, what it is can be learnt
        real, fake, alpha = samples(SHAPE)
        pair = []
        for backend in ("auto", "autograd"):
            calls.clear()
            loss = wgan_fast.critic_loss(f, real, fake, alpha=alpha, backend=backend)
            pair.append((loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)))
            assert calls == [0, 1, 2] or step == 0
        torch.testing.assert_close(pair[0][0], pair[1][0], rtol=1e-12, atol=1e-12)
        assert error(pair[0][1], pair[1][1]) < 1e-10
    assert apart["calls"] == 6


def test_a_copy_takes_the_same_way(apart):
    critic = curved()
    real, fake, alpha = samples(SHAPE)
    for one in (critic, copy.deepcopy(critic)):
        for _ in range(4):
            assert difference(one, real, fake, alpha) < 1e-10
    assert apart["graphs"] >= 8
