"""Calls that come again: from a graph, right, and never where Python takes another way."""

import copy
import gc
import random
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import wgan_fast
from tests.conftest import SEED
from tests.double_backward.critics import CRITICS, random_critic
from tests.double_backward.oracle import (
    IllConditioned,
    ReferenceFails,
    error,
    gradients,
    penalty_error,
    well_posed_error,
)
from wgan_fast import reference
from wgan_fast.double_backward import replays
from wgan_fast.double_backward.replays import CALLS_BEFORE


def mlp(**options):
    return nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2, **options), nn.Linear(8, 1)).double()


SHAPE = (6, 3)


def error_of(loss, function, critic):
    """The largest difference to autograd of a loss's gradients in a module's parameters."""
    data = torch.randn(2, *SHAPE, dtype=torch.float64)
    alpha = torch.rand(6, dtype=torch.float64)
    parameters = [p for p in critic.parameters() if p.requires_grad]
    ours, theirs = (
        torch.autograd.grad(
            loss(function, *data, alpha=alpha, backend=backend), parameters,
            allow_unused=True, materialize_grads=True,
        )
        for backend in ("auto", "autograd")
    )  # fmt: skip
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))


# They write their own state, or read numbers.
NEVER = ("layer InstanceNorm tracked", "layer BatchNorm", "layer spectral norm", "control flow")


@pytest.mark.parametrize("name", random.Random(SEED).sample(sorted(CRITICS), 40))
def test_every_kind_of_critic(name, counted):
    make, shape = CRITICS[name]
    critic = make().double()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        for _ in range(2):
            assert penalty_error(critic, shape) < 1e-10
    assert counted.replayed == (0 if name in NEVER else 2)


def test_most_critics_are_replayed(counted):
    """Random ones, other ones in every run; all are right, and most come from a graph."""
    with_graph = 0
    for seed in range(SEED, SEED + 30):
        torch.manual_seed(seed)
        critic, shape = random_critic(seed)
        critic = critic.double()
        before = counted.replayed
        try:
            for _ in range(2):
                assert well_posed_error(critic, shape) < 1e-10, (seed, critic)
        except (IllConditioned, ReferenceFails):
            continue
        with_graph += counted.replayed > before
    assert with_graph >= 8  # those that write their own statistics are not


@pytest.mark.parametrize("at", ["mix", "real", "fake", "both", "dragan"])
@pytest.mark.parametrize("objective", ["wasserstein", "hinge", "nonsaturating", "relativistic"])
def test_every_objective_at_every_point(at, objective, counted):
    critic = mlp()
    for weight in (2.0, 5.0, torch.tensor(0.5, dtype=torch.float64)):
        data = torch.randn(2, *SHAPE, dtype=torch.float64)
        penalty = wgan_fast.Penalty(at=at, target=0.7)
        found = []
        for backend in ("auto", "autograd"):
            torch.manual_seed(SEED)  # the same points
            loss, stats = wgan_fast.critic_loss(
                critic, *data, penalty=penalty, weight=weight, objective=objective, drift=0.1,
                backend=backend, return_stats=True,
            )  # fmt: skip
            found.append([*stats, *gradients(loss, critic)])
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert counted.replayed == 2 + 1


def test_from_the_eleventh_call_on(monkeypatch):
    calls = []
    monkeypatch.setattr(replays._Replayed, "__call__", lambda *_: calls.append(1))
    critic = mlp()
    for _ in range(CALLS_BEFORE):
        penalty_error(critic, SHAPE)
    assert len(calls) == 1  # the trace is compared with the call that it was made in
    assert CALLS_BEFORE == 10


@pytest.mark.parametrize("loss", [wgan_fast.gradient_penalty, wgan_fast.critic_loss])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_the_bit(loss, dtype, counted):
    """A run that is resumed counts its calls anew; where batches stay whole, nobody sees it."""
    critic = nn.Sequential(
        nn.Linear(3, 40), nn.LeakyReLU(0.2), nn.LayerNorm(40), nn.Linear(40, 40), nn.SiLU(),
        nn.Linear(40, 1),
    ).to(dtype)  # fmt: skip
    data, alpha = torch.randn(2, 8, 3, dtype=dtype), torch.rand(8, dtype=dtype)
    value = loss(critic, *data, alpha=alpha)
    usual = [value.detach(), *gradients(value, critic)]
    for _ in range(3):
        value = loss(critic, *data, alpha=alpha)
        for one, other in zip([value.detach(), *gradients(value, critic)], usual, strict=True):
            assert (one is None and other is None) or torch.equal(one, other)
    assert counted.replayed == 4


def test_packs_and_parts_of_outputs(counted):
    packed = Packed(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 1)).double()
    both = Both().double()
    for _ in range(3):
        for critic, options in ((packed, {"pac": 2}), (both, {"select": "score"})):
            data = torch.randn(2, *SHAPE, dtype=torch.float64)
            alpha = torch.rand(6 // options.get("pac", 1), dtype=torch.float64)
            for loss in (wgan_fast.gradient_penalty, wgan_fast.critic_loss):
                ours, theirs = (
                    gradients(loss(critic, *data, alpha=alpha, backend=backend, **options), critic)
                    for backend in ("auto", "autograd")
                )
                assert error(ours, theirs) < 1e-10
    assert counted.replayed == 3 * 2 + 3  # losses of parts may be of several scales


class Packed(nn.Sequential):
    """One score for two samples, as CTGAN's."""

    def forward(self, x):
        return super().forward(x.view(-1, 6))


class Both(nn.Module):
    """Returns a score and what it was made of."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, x):
        features = self.first(x).relu()
        return {"score": self.last(features), "features": features}


def test_differentiated_twice(counted):
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    data, alpha = torch.randn(2, *SHAPE, dtype=torch.float64), torch.rand(6)
    for _ in range(3):
        found = []
        for backend in ("auto", "autograd"):
            loss = wgan_fast.gradient_penalty(critic, *data, alpha=alpha, backend=backend)
            first = torch.autograd.grad(
                loss, critic.parameters(), create_graph=True, allow_unused=True
            )
            size = sum(g.square().sum() for g in first if g is not None)
            found.append(gradients(size, critic))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert counted.replayed == 3


@pytest.mark.parametrize("inplace", [False, True])
def test_under_autocast_and_without(inplace, counted):
    critic = copy.deepcopy(mlp(inplace=inplace)).float()
    for step in range(6):
        narrow = step % 2 == 1
        data, alpha = torch.randn(2, *SHAPE), torch.rand(6)
        found = []
        for backend in ("auto", "autograd"):
            with torch.autocast("cpu", torch.bfloat16) if narrow else nullcontext():
                loss = wgan_fast.critic_loss(critic, *data, alpha=alpha, backend=backend)
            found.append([loss.detach(), *gradients(loss, critic)])
        room = 0.1 if narrow else 1e-4
        for ours, theirs in zip(*found, strict=True):
            assert (ours - theirs).norm() <= room * (1e-3 + theirs.norm())
    assert counted.replayed >= 2


@pytest.mark.parametrize("loss", [wgan_fast.gradient_penalty, wgan_fast.critic_loss])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_convolutions_in_float32(loss, memory_format, counted):
    """They run in another layout than the critic sees."""
    critic = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(8, 16, 4, 2, 1),
        nn.InstanceNorm2d(16, affine=True), nn.SiLU(), nn.Flatten(), nn.Linear(16 * 16, 1),
    ).to(memory_format=memory_format)  # fmt: skip
    for _ in range(3):
        data = torch.randn(2, 4, 3, 16, 16)
        data = [x.contiguous(memory_format=memory_format) for x in data]
        alpha, found = torch.rand(4), []
        for backend, dtype in (("auto", torch.float32), ("autograd", torch.float64)):
            here = copy.deepcopy(critic).double() if dtype == torch.float64 else critic
            value = loss(here, *(x.to(dtype) for x in data), alpha=alpha.to(dtype), backend=backend)
            found.append([value.detach(), *gradients(value, here)])
        largest = max(theirs.norm() for theirs in found[1] if theirs is not None)
        for ours, theirs in zip(*found, strict=True):
            assert (ours is None) == (theirs is None)
            if theirs is not None:
                assert (ours.double() - theirs).norm() <= 1e-5 * largest
    assert counted.replayed == 3


def test_a_graph_keeps_no_critic_alive(counted):
    critic = mlp()
    for _ in range(3):
        wgan_fast.gradient_penalty(critic, *torch.randn(2, *SHAPE, dtype=torch.float64))
    assert counted.replayed == 3
    gone = weakref.ref(critic)
    del critic
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_images_that_are_laid_flat(chunk_size, layout, counted):
    """In the layout that the engine convolves in, that takes a copy, on stand-ins as well."""
    critic = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(8 * 16, 1)
    ).to(memory_format=layout)
    exact = copy.deepcopy(critic).double()
    for _ in range(4):
        real, fake = torch.randn(2, 6, 3, 8, 8)
        alpha = torch.rand(6)
        loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, chunk_size=chunk_size)
        textbook = reference.critic_loss(
            exact, real.double(), fake.double(), alpha.double(), weight=10.0
        )
        found, expected = (
            torch.autograd.grad(one, list(c.parameters()))
            for one, c in ((loss, critic), (textbook, exact))
        )
        assert error([g.double() for g in found], expected) < 1e-4
    assert counted.replayed == 3 + 1
    assert counted.missed == 0


def test_large_activations_are_not_worth_it_on_a_cpu(counted):
    critic = nn.Sequential(nn.Linear(3, 1 << 19), nn.ReLU(), nn.Linear(1 << 19, 1))
    for _ in range(3):
        wgan_fast.gradient_penalty(critic, *torch.randn(2, *SHAPE))
    assert counted.replayed == 0
