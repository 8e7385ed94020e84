"""Penalties at samples of the loss, and other losses of the scores: equal to the reference."""

import pytest
import torch
from torch import nn

import wgan_fast
from tests.double_backward.critics import CRITICS, Apply
from tests.double_backward.oracle import error, gradients, same_start
from wgan_fast import objectives, reference

# One batch draws its dropout masks in another order than two or three calls do.
RANDOM = ("Dropout", "RReLU", "FractionalMaxPool", "transformer")
NAMES = [name for name in CRITICS if not any(word in name for word in RANDOM)]


def own_objective(real_scores, fake_scores):
    return (real_scores.mean() - 1).square() + fake_scores.exp().mean().log()


def distance(critic, shape, at, objective, **options) -> float:
    """How far critic_loss is from the reference on fresh samples."""
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    drift, weight, target = options.pop("drift", 0.0), 3.0, 0.2
    alpha = torch.rand(shape[0], dtype=torch.float64) if at == "mix" else None
    of_scores = objective
    if isinstance(objective, str):
        of_scores = None if objective == "wasserstein" else getattr(objectives, objective)

    def ours():
        loss = wgan_fast.critic_loss(
            critic, real, fake, alpha=alpha, at=at, objective=objective, drift=drift,
            weight=weight, target=target, **options,
        )  # fmt: skip
        return loss.detach(), gradients(loss, critic)

    def theirs():
        common = {"target": target, "drift": drift, "objective": of_scores}
        if at == "mix":
            loss = reference.critic_loss(critic, real, fake, alpha, weight, **common)
        else:
            loss = reference.critic_loss_at_samples(critic, real, fake, at, weight, **common)
        return loss.detach(), gradients(loss, critic)

    value, mine = same_start(critic, ours)
    expected, other = same_start(critic, theirs)
    return max(abs(value - expected).item() / max(1, abs(expected).item()), error(mine, other))


@pytest.mark.parametrize("at", ["real", "fake", "both"])
@pytest.mark.parametrize("name", NAMES)
def test_every_critic(name, at):
    make, shape = CRITICS[name]
    critic = make().double()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert distance(critic, shape, at, "wasserstein") < 1e-10
        assert distance(critic, shape, at, "nonsaturating", drift=0.3) < 1e-10


@pytest.mark.parametrize("at", ["mix", "real", "fake", "both"])
@pytest.mark.parametrize("objective", [*objectives.NAMED, own_objective])
@pytest.mark.parametrize(
    "name", ["activation SiLU", "activation PReLU", "patch", "layer BatchNorm", "shared parameter"]
)
def test_every_objective(name, objective, at):
    make, shape = CRITICS[name]
    backend = "auto" if name == "layer BatchNorm" else "explicit"
    assert distance(make().double(), shape, at, objective, backend=backend) < 1e-10


@pytest.mark.parametrize("at", ["mix", "real", "fake", "both"])
@pytest.mark.parametrize("objective", objectives.NAMED)
def test_in_slices(objective, at):
    make, _ = CRITICS["layer LayerNorm"]
    assert distance(make().double(), (7, 3, 8, 8), at, objective, chunk_size=3) < 1e-10


def test_samples_that_see_each_other_cannot_share_explicit_passes():
    critic = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(RuntimeError, match="backend=\"explicit\": at='real'"):
        wgan_fast.critic_loss(critic, *torch.randn(2, 6, 5), at="real", backend="explicit")


def test_statistics_count_what_was_penalised():
    critic = Apply(lambda m, x: m[0](x), nn.Linear(5, 1))
    norm = critic.parts[0].weight.norm()
    _, stats = wgan_fast.critic_loss(
        critic, *torch.randn(2, 6, 5), at="both", target=0.0, return_stats=True
    )
    torch.testing.assert_close(stats.gradient_norm, norm.detach())
    torch.testing.assert_close(stats.penalty, 2 * norm.detach() ** 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "middle"}, "at: expected one of 'mix'"),
        ({"objective": "magic"}, "objective: expected one of 'wasserstein'"),
        ({"objective": 3}, "objective: expected a name or a function"),
        ({"objective": lambda real, fake: 1.0}, "objective: expected it to return a floating"),
        ({"objective": lambda real, fake: real}, "objective: expected it to return a scalar"),
        ({"objective": lambda real, fake: torch.ones(())}, "objective: expected a function of"),
        ({"objective": own_objective, "chunk_size": 2}, "chunk_size: expected None with an"),
        ({"at": "real", "alpha": torch.rand(6)}, "alpha, generator: expected None"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        wgan_fast.critic_loss(nn.Linear(5, 1), *torch.randn(2, 6, 5), **options)


def test_half_precision_survives_a_large_batch():
    """In float16, 1/B times a small slope is zero, and GradScaler's factor comes too late."""
    critic = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 1, bias=False))
    critic[1].weight.data.mul_(1e-3)
    real, fake = torch.randn(2, 4096, 3)

    def weight_gradient(backend):
        loss = wgan_fast.critic_loss(critic, real, fake, weight=0.0, backend=backend)
        return torch.autograd.grad(loss, critic[0].weight)[0]

    with torch.autocast("cpu", dtype=torch.float16):
        half = weight_gradient("explicit")
    expected = weight_gradient("autograd")
    assert (half - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("at", ["mix", "real"])
def test_what_an_objective_holds_has_its_gradient(at):
    """A learnable temperature, and one that is computed from it."""
    critic = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)).double()
    temperature = nn.Parameter(torch.randn((), dtype=torch.float64))
    held = [temperature, *critic.parameters()]
    options = {"at": at, "target": 0.0} if at == "real" else {}
    for _ in range(3):
        real, fake = torch.randn(2, 6, 3, dtype=torch.float64)
        if at == "mix":
            options["alpha"] = torch.rand(6, dtype=torch.float64)
        found = []
        for backend in ("auto", "autograd"):
            scale = temperature.exp()
            loss = wgan_fast.critic_loss(
                critic, real, fake, backend=backend, **options,
                objective=lambda r, f: (scale * (f - r)).square().mean(),  # noqa: B023
            )  # fmt: skip
            found.append(torch.autograd.grad(loss, held, allow_unused=True))
        for one, other in zip(*found, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
