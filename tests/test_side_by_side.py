"""Batches in equal parts, one on each thread: the same numbers, and only where that is proven."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import wgan_fast
from tests.critic_shapes import CASES, B, textbook
from tests.double_backward.critics import random_critic
from tests.double_backward.oracle import error, gradients, own_movement, same_start, samples
from wgan_fast import CriticLoop, reference, side_by_side
from wgan_fast.double_backward import replays
from wgan_fast.models import MLPCritic
from wgan_fast.ops.registration import EXTENSION_MISSING
from wgan_fast.side_by_side import SideBySide

pytestmark = [
    pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here"),
    pytest.mark.usefixtures("two_threads"),
]

SHAPE = (6, 3)


@pytest.fixture
def taken(monkeypatch):
    """The calls that were made in parts, however small."""
    calls = []
    call = SideBySide.__call__

    def counting(self, *arguments):
        calls.append(self)
        return call(self, *arguments)

    monkeypatch.setattr(side_by_side, "_SAMPLES", 1)
    monkeypatch.setattr(SideBySide, "__call__", counting)
    return calls


def mlp(*layers):
    return nn.Sequential(nn.Linear(3, 8), *layers, nn.Linear(8, 1)).double()


def frozen(critic, real, fake, alpha, **options):
    return wgan_fast.freeze(critic, real, **options)(real, fake, alpha)


def replayed(critic, real, fake, alpha, **options):
    for _ in range(2):
        loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, **options)
    return loss


def replayed_penalty(critic, real, fake, alpha, **options):
    for _ in range(2):
        loss = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, **options)
    return loss


LOSSES = {
    frozen: reference.critic_loss,
    replayed: reference.critic_loss,
    replayed_penalty: reference.gradient_penalty,
}


def difference(loss, textbook, critic, real, fake, alpha):
    """How far value and gradients are from the textbook's."""

    def of(function):
        value = function(critic, real, fake, alpha)
        return value.detach(), gradients(value, critic)

    value, mine = same_start(critic, lambda: of(loss))
    expected, others = same_start(critic, lambda: of(textbook))
    off = abs(value - expected).item() / max(abs(expected).item(), 1.0)
    return max(off, error(mine, others))


@pytest.mark.parametrize("loss", LOSSES)
def test_random_critics(loss, taken, monkeypatch):
    monkeypatch.setattr(replays, "CALLS_BEFORE", 1)
    in_parts = 0
    for seed in range(30_000, 30_012):
        torch.manual_seed(seed)
        critic, (_, *sample) = random_critic(seed)
        critic, shape = critic.double(), (SHAPE[0], *sample)
        start = torch.get_rng_state()
        taken.clear()
        try:
            off = difference(loss, LOSSES[loss], critic, *samples(shape))
        except RuntimeError as failure:
            if "is not implemented" not in str(failure):  # the textbook's
                raise
            continue
        in_parts += bool(taken)
        if off >= 1e-9:
            torch.set_rng_state(start)
            assert own_movement(critic, shape) >= off / 100, seed
    assert in_parts >= 3


@pytest.mark.parametrize("name", CASES)
def test_critics_of_every_shape(name, taken):
    case = CASES[name]()
    step = wgan_fast.freeze(case.critic, case.real, weight=3.0, **case.options)
    alpha = torch.rand(B // case.pac, dtype=torch.float64)
    ours, theirs = step(case.real, case.fake, alpha, **of_batch(case)), textbook(case, alpha)[1]
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert error(gradients(ours, case.critic), gradients(theirs, case.critic)) < 1e-10


def of_batch(case):
    names = ("cond", "cond_kwargs", "mask")
    return {name: case.options[name] for name in names if name in case.options}


POINTS = [
    {"at": "mix", "objective": "relativistic", "drift": 0.1},
    {"at": "both", "target": 0.0, "objective": "hinge"},
    {"at": "real", "target": 0.0},
    {"penalty": "lp", "objective": "nonsaturating"},
]


@pytest.mark.parametrize("options", POINTS, ids=str)
@pytest.mark.parametrize("loss", [frozen, replayed])
def test_every_mean(loss, options, taken, monkeypatch):
    monkeypatch.setattr(replays, "CALLS_BEFORE", 1)
    critic = mlp(nn.LeakyReLU(0.2), nn.Linear(8, 8), nn.Tanh())
    real, fake, alpha = samples(SHAPE)
    drawn = alpha if "at" not in options or options["at"] == "mix" else None

    def by_autograd(critic, real, fake, alpha):
        return wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend="autograd", **options)

    def ours(*arguments):
        return loss(*arguments, **options)

    assert difference(ours, by_autograd, critic, real, fake, drawn) < 1e-10
    assert taken


def test_dragan_is_taken_around_the_whole_batch(taken):
    critic = mlp(nn.Tanh())
    real, fake, _ = samples(SHAPE)
    step = wgan_fast.freeze(critic, real, penalty="dragan")
    seeds = (torch.Generator().manual_seed(3) for _ in range(2))
    ours = step(real, fake, generator=next(seeds))
    theirs = wgan_fast.critic_loss(
        critic, real, fake, penalty="dragan", generator=next(seeds), backend="autograd"
    )
    assert taken
    assert error(gradients(ours, critic), gradients(theirs, critic)) < 1e-10


class Scaled(nn.Module):
    """Its scores depend on how large its batch is."""

    def __init__(self):
        super().__init__()
        self.critic = mlp(nn.Tanh())

    def forward(self, x):
        return self.critic(x) / len(x)


def of_both(real_scores, fake_scores):
    return (fake_scores.mean() - real_scores.mean()).square()


APART = {
    "batch statistics": (lambda: mlp(nn.BatchNorm1d(8)), {}),
    "dropout": (lambda: mlp(nn.Dropout(0.5)), {}),
    "state": (lambda: nn.Sequential(parametrizations.spectral_norm(mlp(nn.ReLU())[0])), {}),
    "the batch's size": (Scaled, {}),
    "an objective of one's own": (lambda: mlp(nn.Tanh()), {"objective": of_both}),
    "a maximum": (lambda: mlp(nn.Tanh()), {"penalty": "max"}),
}


@pytest.mark.parametrize("name", APART)
@pytest.mark.parametrize("loss", [frozen, replayed])
def test_never_in_parts(name, loss, taken, monkeypatch):
    monkeypatch.setattr(replays, "CALLS_BEFORE", 1)
    make, options = APART[name]
    loss(make(), *samples(SHAPE), **options)
    assert not taken


def test_what_all_samples_share_is_not_cut(taken):
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4).double()

        def forward(self, x, weights):
            return self.layer(x).tanh() @ weights

    critic, (real, fake, alpha) = Critic(), samples(SHAPE)
    shared = {"cond_kwargs": {"weights": torch.randn(4, dtype=torch.float64)}}
    step = wgan_fast.freeze(critic, real, **shared)
    theirs = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend="autograd", **shared)
    torch.testing.assert_close(step(real, fake, alpha, **shared), theirs)
    assert not taken


def test_compiled(taken, monkeypatch):
    monkeypatch.setattr(side_by_side, "_COMPILED", 0)
    critic, (real, fake, alpha) = mlp(nn.Tanh()), samples(SHAPE)
    step = wgan_fast.freeze(critic, real, compile=True)

    def compiled(critic, real, fake, alpha):
        return step(real, fake, alpha)

    taken.clear()
    assert difference(compiled, reference.critic_loss, critic, real, fake, alpha) < 1e-9
    assert len(taken) == 1


def test_small_odd_and_large_batches_stay_whole():
    def parts(*shapes):
        return side_by_side.parts_of([torch.randn(shape) for shape in shapes])

    assert parts((16, 3), (16,), ()) == 2
    assert parts((14, 3)) == 1
    assert parts((17, 3)) == 1
    assert parts((32, 3), (16,)) == 2
    assert parts((32, 3), (1, 3)) == 1
    assert parts(()) == 1
    torch.set_num_threads(1)
    assert parts((16, 3)) == 1

    torch.set_num_threads(2)
    for width, in_parts in ((512, False), (128, True)):
        step = wgan_fast.freeze(MLPCritic(2, width), torch.randn(64, 2))
        (function,) = step._frozen.values()
        (graph,) = function._graphs.values()
        assert isinstance(graph, SideBySide) is in_parts


def test_another_number_of_threads(taken):
    critic, (real, fake, alpha) = mlp(nn.Tanh()), samples(SHAPE)
    step = wgan_fast.freeze(critic, real)
    losses = []
    for threads, calls in ((2, 1), (1, 0), (3, 1), (2, 1)):
        torch.set_num_threads(threads)
        step(real, fake, alpha)
        taken.clear()
        losses.append(step(real, fake, alpha))
        assert len(taken) == calls
    for loss in losses:
        torch.testing.assert_close(loss, losses[0], rtol=1e-12, atol=1e-12)
    assert torch.equal(losses[0], losses[-1])


def descent(module):
    return torch.optim.SGD(module.parameters(), 1e-3)


@pytest.mark.parametrize("objective", ["wgan-gp", "wgan", "dcgan"])
def test_a_loop(objective, taken):
    # Smooth: clipped weights are equal ones, whose sums cancel at a kink but for rounding.
    networks = (
        nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double(),
        nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double(),
    )
    loops = []
    for mode in ("captured", "eager"):
        generator, critic = copy.deepcopy(networks)
        loops.append(
            CriticLoop(
                generator, critic, descent(generator), descent(critic),
                latent_shape=4, objective=objective, n_critic=2, mode=mode,
                rng=torch.Generator().manual_seed(1),
            )
        )  # fmt: skip
    for _ in range(3):
        reals = torch.randn(2, 6, 2, dtype=torch.float64)
        for one, other in zip(*(loop(reals) for loop in loops), strict=True):
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert len(set(map(id, taken))) == 3  # the fakes, the critic's step and the generator's
    for ours, theirs in zip(
        *([*loop.generator.parameters(), *loop.critic.parameters()] for loop in loops), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


CONVOLUTIONS = """
import torch, wgan_fast
from torch import nn
from wgan_fast import reference
from wgan_fast.side_by_side import SideBySide

torch.set_num_threads(2)
images, fake = torch.randn(2, 32, 3, 16, 16)
critic = nn.Sequential(
    nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2),
    nn.Flatten(), nn.Linear(512, 1),
)
alpha = torch.rand(32)
step = wgan_fast.freeze(critic, images)
_, found = step.value_and_grad(images, fake, alpha)
(function,) = step._frozen.values()
assert all(isinstance(graph, SideBySide) for graph in function._graphs.values())
assert torch.get_num_threads() == 2
wide, tensors = critic.double(), (one.double() for one in (images, fake, alpha))
reference.critic_loss(wide, *tensors).backward()
for name, parameter in wide.named_parameters():
    off = (found[name] - parameter.grad).norm()
    assert off < 1e-4 * max(p.grad.norm() for p in wide.parameters()), name
"""


def test_convolutions_in_parts_come_to_an_end():
    """In a process whose threads have run nothing: oneDNN would wait for more of them there."""
    subprocess.run([sys.executable, "-c", CONVOLUTIONS], check=True, timeout=300)
