"""Replayed critics whose Python takes another way, or does more than compute: always noticed."""

import copy
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wgan_fast
from tests.conftest import SEED
from tests.double_backward.oracle import (
    gradients,
    loss_error,
    penalty_error,
)
from tests.double_backward.test_replays import SHAPE, error_of, mlp
from wgan_fast.double_backward import replays


class Changing(nn.Module):
    """A critic whose Python may do anything."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 1)
        self.slope, self.squared, self.cut, self.kept = 0.2, False, False, None
        self.register_buffer("scale", torch.tensor(1.5))

    def forward(self, x):
        h = F.leaky_relu(self.first(x), self.slope) * self.scale
        if self.squared:
            h = h * h
        if self.cut:
            with torch.no_grad():
                scale = self.last.weight.abs().sum()
            h = h / scale
        if self.kept is not None:
            self.kept.append(h.detach())
        return self.last(h)


CHANGES = {
    "another number": lambda c: setattr(c, "slope", 0.3),
    "another branch": lambda c: setattr(c, "squared", True),
    "gradients off": lambda c: setattr(c, "cut", True),
    "a frozen parameter": lambda c: c.first.weight.requires_grad_(False),
    "another parameter": lambda c: setattr(c, "first", nn.Linear(3, 8).double()),
    "another width": lambda c: (
        setattr(c, "first", nn.Linear(3, 5).double()), setattr(c, "last", nn.Linear(5, 1).double()),
    ),
    "other memory": lambda c: setattr(c.first.weight, "data", torch.randn(8, 3).double()),
    "other strides": lambda c: setattr(c.first.weight, "data", torch.randn(3, 8).double().t()),
    "numbers written": lambda c: c.load_state_dict(
        {name: torch.randn_like(tensor) for name, tensor in c.state_dict().items()}
    ),
    "a forward hook": lambda c: c.first.register_forward_hook(lambda *given: given[-1] + 1),
    "weights that are computed": lambda c: nn.utils.parametrizations.orthogonal(c.first),
    "eval mode": lambda c: c.eval(),
    "kept activations": lambda c: setattr(c, "kept", []),
}  # fmt: skip


@pytest.mark.parametrize("loss", [wgan_fast.gradient_penalty, wgan_fast.critic_loss])
@pytest.mark.parametrize("change", CHANGES)
def test_a_critic_that_changes(change, loss, counted):
    critic = Changing().double()
    for _ in range(3):
        assert error_of(loss, critic, critic) < 1e-10
    assert counted.replayed == 3
    CHANGES[change](critic)
    for _ in range(3):
        assert error_of(loss, critic, critic) < 1e-10


def test_a_way_that_alternates(counted):
    critic = Changing().double()
    for step in range(20):
        critic.slope = 0.2 + 0.1 * (step % 2)
        assert loss_error(critic, SHAPE) < 1e-10
    assert counted.missed == 10
    for step in range(60):  # always another number: given up after some traces
        critic.slope = 0.2 + 0.01 * step
        assert loss_error(critic, SHAPE) < 1e-10
    assert counted.missed < 50


def test_dropout_draws_the_same_masks(counted):
    """Replayed or not, one seed gives one result."""
    critic = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.ReLU(), nn.Linear(50, 1)).double()
    data, alpha = torch.randn(2, *SHAPE, dtype=torch.float64), torch.rand(6)
    for loss in (wgan_fast.gradient_penalty, wgan_fast.critic_loss):
        found = []
        for _ in range(4):
            torch.manual_seed(SEED)
            found.append(gradients(loss(critic, *data, alpha=alpha), critic))
            found[-1] += (torch.rand(3),)
        for other in found[1:]:
            for one, two in zip(found[0], other, strict=True):
                torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    assert counted.replayed == 8


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_hook_that_comes_later(everywhere, counted):
    """What it is given are activations, never stand-ins."""
    critic, seen = mlp(), []

    def hook(module, given, result):
        seen.append(result.detach().clone())

    for _ in range(3):
        penalty_error(critic, SHAPE)
    register = nn.modules.module.register_module_forward_hook
    with (register if everywhere else critic[0].register_forward_hook)(hook):
        for _ in range(3):
            penalty_error(critic, SHAPE)
    assert counted.replayed == 3
    assert len(seen) >= 6
    assert all(one.isfinite().all() for one in seen)
    penalty_error(critic, SHAPE)
    assert counted.replayed == 4


def test_what_a_critic_keeps_are_its_activations(counted):
    """A feature extractor's list, say: stand-ins must never be found there."""
    critic = Changing().double()
    critic.kept = []
    data = torch.randn(2, *SHAPE, dtype=torch.float64)
    for _ in range(4):
        critic.kept.clear()
        wgan_fast.gradient_penalty(critic, *data, alpha=torch.ones(6))
        expected = F.leaky_relu(critic.first(data[0]), 0.2) * critic.scale
        torch.testing.assert_close(critic.kept[-1], expected)
    assert counted.replayed == 0


def by_item(h, critic):
    return 1 if h.detach().sum().item() > 0 else 2


def by_numpy(h, critic):
    return 1 if not h.detach().numpy().sum() <= 0 else 2


def by_a_list(h, critic):
    return 1 + len([number for number in h.detach()[:, 0].tolist() if number > 0])


def by_a_shape(h, critic):
    return torch.where(h > 0)[0].numel() / 4


def by_a_cut(h, critic):
    return torch.tensor_split(h, critic.cut, dim=1)[0].shape[1]


class Reading(nn.Module):
    """A critic whose factor Python finds in tensors."""

    def __init__(self, factor):
        super().__init__()
        self.first, self.last, self.factor = nn.Linear(3, 8), nn.Linear(8, 1), factor
        self.register_buffer("cut", torch.tensor([3]))

    def forward(self, x):
        h = self.first(x)
        return self.last(h.tanh()) * self.factor(h, self)


@pytest.mark.parametrize("factor", [by_item, by_numpy, by_a_list, by_a_shape, by_a_cut])
def test_numbers_that_python_reads(factor, counted):
    critic = Reading(factor).double()
    for step in range(12):
        critic.cut.fill_(1 + step % 5)
        assert error_of(wgan_fast.gradient_penalty, critic, critic) < 1e-10
    assert counted.replayed == 0


def test_random_numbers_of_a_stream_of_its_own(counted):
    """Noise that is the same in every call, and leaves PyTorch's own stream as it was."""

    class Forked(nn.Sequential):
        def forward(self, x):
            with torch.random.fork_rng(devices=[]):
                return super().forward(x + torch.rand_like(x))

    critic = Forked(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    data = torch.randn(2, *SHAPE, dtype=torch.float64)
    values = [
        wgan_fast.gradient_penalty(critic, *data, alpha=torch.ones(6)).item() for _ in range(4)
    ]
    assert max(values) - min(values) < 1e-12


def test_weights_that_are_cached(counted):
    critic = mlp()
    nn.utils.parametrizations.weight_norm(critic[0])
    for _ in range(3):
        assert error_of(wgan_fast.gradient_penalty, critic, critic) < 1e-10
    for _ in range(2):
        with nn.utils.parametrize.cached():  # neither side may find a weight without its graph
            assert error_of(wgan_fast.gradient_penalty, critic, critic) < 1e-10
    assert counted.replayed == 5


def test_modes_that_a_critic_changes_for_a_while(counted):
    class Switching(Changing):
        def forward(self, x):
            before = self.training
            self.eval()
            try:
                return super().forward(x)
            finally:
                self.train(before)

    class Careless(Changing):
        def forward(self, x):
            before = self.training
            self.eval()
            scores = super().forward(x)
            self.train(before)
            return scores

    for kind in (Switching, Careless):
        critic = kind().double()
        for step in range(6):
            critic.slope = 0.2 if step < 3 else 0.3
            assert error_of(wgan_fast.gradient_penalty, critic, critic) < 1e-10
            assert critic.training
            assert critic.first.training


def test_a_critic_that_counts_its_calls(counted):
    class Counting(Changing):
        def forward(self, x):
            self.slope += 0.01
            return super().forward(x)

    critic = Counting().double()
    for _ in range(4):
        wgan_fast.gradient_penalty(critic, *torch.randn(2, *SHAPE, dtype=torch.float64))
    assert counted.replayed == 0


class Replacing(nn.Module):
    """Keeps the mean of what it saw, as a new tensor each time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.layer(x - self.mean).square()


@pytest.mark.parametrize("loss", [wgan_fast.gradient_penalty, wgan_fast.critic_loss])
@pytest.mark.parametrize("layer", [
    lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)),
    lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 8)), nn.Tanh(),
                          nn.Linear(8, 1)),
    Replacing,
])  # fmt: skip
def test_state_is_changed_as_often_as_without(layer, loss, counted, monkeypatch):
    critic = layer().double()
    twin = copy.deepcopy(critic)
    for _ in range(4):
        data, alpha = torch.randn(2, *SHAPE, dtype=torch.float64), torch.rand(6)
        loss(critic, *data, alpha=alpha).backward()
        with monkeypatch.context() as patch:
            patch.setattr(replays, "CALLS_BEFORE", 1000)
            loss(twin, *data, alpha=alpha).backward()
        for got, wanted in zip(critic.buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(got, wanted)
    assert counted.replayed == 0


def test_tensors_without_strides(counted):
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.adjacent = torch.eye(3, dtype=torch.float64).to_sparse_csr()

        def forward(self, x):
            return self.layer((self.adjacent @ x.t()).t()).square()

    critic = Graph().double()
    for _ in range(3):
        wgan_fast.gradient_penalty(critic, *torch.randn(2, *SHAPE, dtype=torch.float64)).backward()


def test_threads(counted):
    """Every thread's numbers are right, and nn.Module is afterwards what it was before."""
    before, errors = nn.Module.__call__, []

    def train():
        critic = mlp()
        errors.extend(error_of(wgan_fast.critic_loss, critic, critic) for _ in range(6))

    threads = [threading.Thread(target=train) for _ in range(3)]
    for thread in threads:
        thread.start()
    train()
    for thread in threads:
        thread.join()
    assert len(errors) == 24
    assert max(errors) < 1e-10
    assert nn.Module.__call__ is before


def test_parameters_that_are_replaced_for_good(counted):
    critic = Changing().double()
    for _ in range(3):
        assert loss_error(critic, SHAPE) < 1e-10
    state = {name: torch.randn_like(tensor) for name, tensor in critic.state_dict().items()}
    critic.load_state_dict(state, assign=True)
    for _ in range(20):
        assert error_of(wgan_fast.critic_loss, critic, critic) < 1e-10
    assert counted.missed == 8
    assert counted.replayed > 10


def test_a_critic_that_fails_says_so(counted):
    critic = mlp()
    for _ in range(3):
        penalty_error(critic, SHAPE)
    critic[1].forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        penalty_error(critic, SHAPE)


def test_closures(counted):
    critic = mlp()
    for scale in (1.0, 1.0, 1.0, 2.0, 1.0):
        assert error_of(wgan_fast.critic_loss, lambda x: critic(x) * scale, critic) < 1e-10  # noqa: B023
    assert (counted.replayed, counted.missed) == (4, 1)
