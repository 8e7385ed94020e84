"""Every method that bounds a critic's slope, in the trainer."""

import json
import math
from typing import get_args

import pytest
import torch
from torch import nn

from wgan_fast import reference
from wgan_fast.penalties import NAMED
from wgan_fast.training import TrainConfig, load_checkpoint, sample
from wgan_fast.training.data import load_data
from wgan_fast.training.lipschitz import Lipschitz
from wgan_fast.training.networks import build_networks

METHODS = get_args(Lipschitz)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("data", ["gaussians-25", "digits"])
@pytest.mark.parametrize("lipschitz", METHODS)
def test_trains_and_samples(lipschitz, data, tiny_config, train_quietly):
    # Every captured step is compared with the textbook elsewhere; a trace each would take minutes.
    config = tiny_config(lipschitz=lipschitz, data=data, dtype="float64", steps=2, loop="eager")
    run = train_quietly(config)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert ("penalty" in row) == (lipschitz in (*NAMED, "adaptive"))
        assert ("weight" in row) == (lipschitz == "adaptive")
        assert all(math.isfinite(value) for value in row.values())
    trained = load_checkpoint(run)
    assert trained.config == config
    initial = build_networks(config, torch.device("cpu"), torch.float64)
    for before, after in zip(initial, (trained.generator, trained.critic), strict=True):
        pairs = zip(before.parameters(), after.parameters(), strict=True)
        moved = [not torch.equal(p, q) for p, q in pairs]
        assert sum(moved) > len(moved) / 2
    assert sample(run, count=4).stat().st_size > 0


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("lipschitz", ["r1", "dragan", "sn", "ortho", "groupsort"])
def test_methods_with_cross_entropy(lipschitz, tiny_config, train_quietly):
    settings = {"objective": "dcgan", "dtype": "float64", "steps": 2, "loop": "eager"}
    config = tiny_config(lipschitz=lipschitz, **settings)
    assert config.normalisation == ("batch" if lipschitz == "ortho" else "none")
    trained = load_checkpoint(train_quietly(config))
    assert all(p.isfinite().all() for p in trained.critic.parameters())


def written_out(config, loss_of):
    """The trainer's steps on points as a tutorial has them, with the critic's loss given."""
    dtype = torch.float64
    generator, critic = build_networks(config, torch.device("cpu"), dtype)
    data = load_data(config, torch.device("cpu"), dtype)
    rng = torch.Generator().manual_seed(config.seed + 2**32)
    betas = (config.beta1, config.beta2)
    critic_optimizer = torch.optim.Adam(
        critic.parameters(), lr=config.critic_learning_rate, betas=betas
    )
    generator_optimizer = torch.optim.Adam(
        generator.parameters(), lr=config.generator_learning_rate, betas=betas
    )
    for _ in range(config.steps):
        reals = [data(config.batch_size, rng) for _ in range(config.n_critic)]
        latent = config.n_critic, config.batch_size, config.latent_dim
        latents = torch.randn(latent, generator=rng, dtype=dtype)
        alphas = torch.rand(latent[:2], generator=rng, dtype=dtype)
        for real, z, alpha in zip(reals, latents, alphas, strict=True):
            loss = loss_of(critic, real, generator(z).detach(), alpha)
            critic_optimizer.zero_grad()
            loss.backward()
            critic_optimizer.step()
        z = torch.randn(latent[1:], generator=rng, dtype=dtype)
        loss = -critic(generator(z)).mean()
        generator_optimizer.zero_grad()
        loss.backward()
        generator_optimizer.step()
    return generator, critic


def wasserstein(critic, real, fake, alpha):
    # In the loop's order, which a spectral norm's power iteration sees.
    of_real = critic(real).mean()
    return critic(fake).mean() - of_real


def with_orthogonality(critic, real, fake, alpha):
    loss = wasserstein(critic, real, fake, alpha)
    for layer in critic.modules():
        if isinstance(layer, nn.Linear):
            gram = layer.weight @ layer.weight.T
            loss = loss + 0.7 * ((gram - torch.eye(len(gram))) ** 2).sum()
    return loss


def with_r1(critic, real, fake, alpha):
    return reference.critic_loss_at_samples(critic, real, fake, "real", weight=0.7)


def with_lp(critic, real, fake, alpha):
    return reference.critic_loss(critic, real, fake, alpha, weight=0.7, sided="one")


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("loop", ["eager", "captured"])
@pytest.mark.parametrize(
    ("lipschitz", "loss_of"),
    [
        ("groupsort", wasserstein),
        ("sn", wasserstein),
        ("ortho", with_orthogonality),
        ("r1", with_r1),
        ("lp", with_lp),
    ],
)
def test_the_textbook(lipschitz, loss_of, loop, tiny_config, train_quietly):
    config = tiny_config(
        lipschitz=lipschitz, data="gaussians-25", dtype="float64", loop=loop, penalty_weight=0.7,
        # A spectral norm's power iteration is one per call: as many calls here as there.
        picture_every=100, log_every=100,
    )  # fmt: skip
    trained = load_checkpoint(train_quietly(config))
    for ours, theirs in zip(
        (trained.generator, trained.critic), written_out(config, loss_of), strict=True
    ):
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(
                ours.state_dict()[name], value, rtol=1e-7, atol=1e-9, msg=name
            )


def test_watching_a_spectral_critic_changes_nothing(tiny_config, train_quietly):
    """A call in training mode would move the singular vectors on."""

    def trained(every):
        config = tiny_config(
            lipschitz="sn", data="swiss-roll", picture_every=every, log_every=every
        )
        return load_checkpoint(train_quietly(config)).critic.state_dict()

    often, once = trained(1), trained(3)
    assert all(torch.equal(often[name], once[name]) for name in often)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"objective": "wgan-gp", "lipschitz": "gp", "penalty_weight": 10.0}),
        ({"objective": "wgan"}, {"lipschitz": "clip"}),
        ({"objective": "dcgan"}, {"lipschitz": "none", "normalisation": "batch"}),
        ({"lipschitz": "clip"}, {"objective": "wgan", "critic_learning_rate": 5e-5}),
        (
            {"lipschitz": "sn"},
            {"objective": "wgan", "critic_learning_rate": 2e-4, "beta1": 0.0, "beta2": 0.9},
        ),
        (
            {"lipschitz": "r1", "data": "gaussians-8"},
            {"objective": "wgan-gp", "penalty_weight": 5.0, "beta1": 0.5},
        ),
        ({"lipschitz": "div"}, {"penalty_weight": 2.0}),
        ({"lipschitz": "lp", "data": "gaussians-8"}, {"penalty_weight": 0.1}),
        ({"lipschitz": "groupsort"}, {"objective": "wgan", "generator_learning_rate": 1e-4}),
        ({"objective": "dcgan", "lipschitz": "r1"}, {"beta1": 0.5, "penalty_weight": 5.0}),
    ],
)
def test_settings_left_out_are_the_methods(given, expected):
    config = TrainConfig(**given)
    assert {name: getattr(config, name) for name in expected} == expected
    assert TrainConfig(**config.to_json()) == config


def test_a_run_folder_tells_the_method(tiny_config, train_quietly, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for lipschitz, name in (("r1+r2", "wgan-gp-r1-r2-digits"), ("gp", "wgan-gp-digits")):
        run = train_quietly(tiny_config(lipschitz=lipschitz, run_folder=None, steps=1))
        assert run.name == name
