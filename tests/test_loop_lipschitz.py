"""CriticLoop with every way to bound a critic's slope, against loops that are written out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wgan_fast
from tests.test_capture_contract import LATENT, N_CRITIC, RecordedLoop, assert_same, loop_over
from wgan_fast import CriticLoop, Penalty
from wgan_fast.cuda_graph import WARM_UP_CALLS
from wgan_fast.models import (
    DCGANCritic,
    DCGANGenerator,
    GroupSortConvCritic,
    GroupSortMLPCritic,
    MLPCritic,
    MLPGenerator,
)
from wgan_fast.penalties import NAMED

BATCH = 4


def points():
    return torch.randn(N_CRITIC, BATCH, 2, dtype=torch.float64)


def squares(critic):
    """A regulariser whose gradient is plain to see."""
    return 0.3 * sum((parameter**2).sum() for parameter in critic.parameters())


def toys(critic=None):
    critic = MLPCritic(2, 8) if critic is None else critic
    return MLPGenerator(LATENT, 2, 8).double(), critic.double()


def written_out(loop, rng, reals, penalty=None, regulariser=None, cross_entropy=False):
    """One iteration of the textbook with a penalty by autograd; returns the mean critic's loss."""
    generator, critic = loop.generator, loop.critic
    dtype, losses = torch.float64, []
    latents = torch.randn(N_CRITIC, BATCH, LATENT, generator=rng, dtype=dtype)
    noises = None
    if penalty is not None and penalty.at == "dragan":
        noises = torch.rand(reals.shape, generator=rng, dtype=dtype)
    alphas = torch.rand(N_CRITIC, BATCH, generator=rng, dtype=dtype)
    for step in range(N_CRITIC):
        real, fake = reals[step], generator(latents[step]).detach()
        if cross_entropy:
            loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake)).mean()
        else:
            # In the loop's order, which a spectral norm's power iteration sees.
            of_real = critic(real).mean()
            loss = critic(fake).mean() - of_real
        if penalty is not None:
            alpha = alphas[step].reshape(-1, *[1] * (real.dim() - 1))
            around = None
            if noises is not None:
                around = real + alpha * 0.5 * real.std(correction=0) * noises[step]
            where = {
                "mix": [alpha * real + (1 - alpha) * fake],
                "real": [real],
                "fake": [fake],
                "both": [real, fake],
                "dragan": [around],
            }[penalty.at]
            for samples in where:
                samples = samples.detach().requires_grad_()
                (g,) = torch.autograd.grad(critic(samples).sum(), samples, create_graph=True)
                norms = g.flatten(1).norm(p={1.0: torch.inf, 2.0: 2.0}.get(penalty.p, 1.0), dim=1)
                excess = norms - penalty.target
                if penalty.sided == "one":
                    excess = excess.clamp(min=0)
                each = excess.abs() ** penalty.power
                loss = loss + penalty.weight * (
                    each.max() if penalty.reduction == "max" else each.mean()
                )
        if regulariser is not None:
            loss = loss + regulariser(critic)
        loop.critic_optimizer.zero_grad()
        loss.backward()
        loop.critic_optimizer.step()
        losses.append(loss.detach())
    z = torch.randn(BATCH, LATENT, generator=rng, dtype=dtype)
    scores = critic(generator(z))
    loss = F.softplus(-scores).mean() if cross_entropy else -scores.mean()
    loop.generator_optimizer.zero_grad()
    loss.backward()
    loop.generator_optimizer.step()
    return torch.stack(losses).mean()


def compare(networks, mode, objective, loop_options, written_options, calls=4, make=points):
    """The loop and the textbook from the same start; their losses and parameters agree."""
    kind = CriticLoop if mode != "recorded" else RecordedLoop
    mode = mode if mode != "recorded" else "captured"
    twins = copy.deepcopy(networks)

    def adam(module):
        return torch.optim.Adam(module.parameters(), lr=1e-3, betas=(0.0, 0.9), fused=True)

    loop, textbook = (
        kind(
            *pair, adam(pair[0]), adam(pair[1]), latent_shape=LATENT, objective=objective,
            n_critic=N_CRITIC, rng=torch.Generator().manual_seed(7), mode=mode, **loop_options,
        )
        for pair in (networks, twins)
    )  # fmt: skip
    rng = torch.Generator().manual_seed(7)
    for _ in range(calls):
        reals = make()
        stats = loop(reals)
        expected = written_out(textbook, rng, reals, **written_options)
        torch.testing.assert_close(stats.critic_loss, expected, rtol=1e-8, atol=1e-10)
    for ours, theirs in zip(networks, twins, strict=True):
        for (name, value), wanted in zip(
            ours.state_dict().items(), theirs.state_dict().values(), strict=True
        ):
            # Adam divides by a gradient's size: rounding is seen where that should be zero.
            torch.testing.assert_close(value, wanted, rtol=1e-8, atol=1e-9, msg=name)
    return loop


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_penalty(name, mode):
    form = Penalty.named(name)
    compare(toys(), mode, "wgan-gp", {"penalty": name}, {"penalty": form})


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("name", ["r1", "dragan"])
def test_penalties_with_cross_entropy(name, mode):
    form = Penalty.named(name)
    loop = compare(
        toys(), mode, "dcgan", {"penalty": name}, {"penalty": form, "cross_entropy": True}
    )
    stats = loop(points())
    assert stats.wasserstein is None
    assert stats.penalty > 0
    assert stats.gradient_norm > 0


@pytest.mark.parametrize("mode", ["eager", "captured", "recorded"])
@pytest.mark.parametrize("objective", ["wgan-gp", "wgan"])
def test_a_regulariser(objective, mode):
    form = Penalty.named("gp") if objective == "wgan-gp" else None
    calls = 4 if mode != "recorded" else WARM_UP_CALLS + 4
    compare(
        toys(), mode, objective, {"regulariser": squares, "clip_value": None},
        {"penalty": form, "regulariser": squares}, calls,
    )  # fmt: skip


def test_orthogonal_regularisation_compiled():
    compare(
        toys(), "compiled", "wgan",
        {"regulariser": wgan_fast.orthogonal_regularisation, "clip_value": None},
        {"regulariser": wgan_fast.orthogonal_regularisation}, calls=2,
    )  # fmt: skip


def images():
    return torch.randn(N_CRITIC, BATCH, 1, 16, 16, dtype=torch.float64).tanh()


CRITICS = {
    "groupsort": (lambda: GroupSortMLPCritic(2, 8), points),
    "groupsort images": (
        lambda: GroupSortConvCritic(16, channels=4, image_channels=1),
        images,
    ),
    "spectral": (lambda: MLPCritic(2, 8, lipschitz="spectral"), points),
    "spectral images": (
        lambda: DCGANCritic(16, channels=2, image_channels=1, lipschitz="spectral"),
        images,
    ),
}


def descent(module, objective):
    # RMSprop divides by a gradient's size: an orthogonal weight's is rounding in some places.
    return torch.optim.SGD(module.parameters(), lr=0.1)


@pytest.mark.parametrize("mode", ["captured", "recorded"])
@pytest.mark.parametrize("name", CRITICS)
def test_critics_that_need_no_clipping(name, mode):
    make, samples = CRITICS[name]
    critic = make().double()
    generator = MLPGenerator(LATENT, 2, 8).double()
    if samples is images:
        generator = DCGANGenerator(16, latent_dim=LATENT, channels=2, image_channels=1).double()
    networks = generator, critic
    twins = copy.deepcopy(networks)
    kind = RecordedLoop if mode == "recorded" else CriticLoop
    loop = loop_over(kind, *networks, "wgan", descent, mode="captured", clip_value=None)
    eager = loop_over(CriticLoop, *twins, "wgan", descent, mode="eager", clip_value=None)
    for _ in range(WARM_UP_CALLS + 4):
        reals = samples()
        for got, wanted in zip(loop(reals), eager(reals), strict=True):
            if wanted is not None:
                torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-11)
    if mode == "recorded":
        assert loop.graphs[0].replays == 4
    assert_same(loop, eager)


@pytest.mark.parametrize("name", ["groupsort", "spectral"])
def test_the_textbook_without_clipping(name):
    compare(toys(CRITICS[name][0]()), "captured", "wgan", {"clip_value": None}, {})


def test_clipping_can_be_left_out_between_calls():
    # A narrow critic of ReLUs dies in one draw of two hundred, and then nothing moves its weights.
    generator, critic = toys(nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)))
    loop = loop_over(CriticLoop, generator, critic, "wgan", mode="captured", clip_value=0.01)
    loop(points())
    assert max(p.abs().max() for p in critic.parameters()) <= 0.01
    loop.clip_value = None
    loop(points())
    assert max(p.abs().max() for p in critic.parameters()) > 0.01


def test_arguments():
    generator, critic = toys()
    for options, kind, message in (
        ({"objective": "wgan", "penalty": "gp"}, ValueError, r'penalty: .*is objective="wgan-gp"'),
        ({"penalty": "pg"}, ValueError, "penalty: "),
        ({"regulariser": 0.1}, TypeError, "regulariser: expected a callable, got 0.1"),
    ):
        with pytest.raises(kind, match=message):
            loop_over(CriticLoop, generator, critic, **options)
    loop = loop_over(CriticLoop, generator, critic, mode="eager", regulariser=lambda critic: 3.0)
    with pytest.raises(TypeError, match="regulariser: expected it to return a scalar"):
        loop(points())
