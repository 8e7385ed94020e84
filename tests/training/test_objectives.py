"""Each objective's formulas against the same written out in plain torch."""

import pytest
import torch

from wgan_fast.models import DCGANCritic, MLPCritic, MLPGenerator
from wgan_fast.training import TrainConfig
from wgan_fast.training.objectives import build_objective


@pytest.fixture
def batch():
    return {
        "critic": MLPCritic(2, 16).double(),
        "real": torch.randn(6, 2, dtype=torch.float64),
        "fake": torch.randn(6, 2, dtype=torch.float64),
    }


def critic_loss(batch, **settings):
    objective = build_objective(TrainConfig(data="gaussians-8", **settings))
    rng = torch.Generator().manual_seed(3)
    return objective.critic_loss(batch["critic"], batch["real"], batch["fake"], rng)


def test_dcgan_is_binary_cross_entropy_on_logits(batch):
    loss, seen = critic_loss(batch, objective="dcgan")
    p_real = torch.sigmoid(batch["critic"](batch["real"]))
    p_fake = torch.sigmoid(batch["critic"](batch["fake"]))
    torch.testing.assert_close(loss, -(p_real.log().mean() + (1 - p_fake).log().mean()))
    assert set(seen) == {"critic_loss", "real_score", "fake_score"}

    objective = build_objective(TrainConfig(objective="dcgan"))
    fake = batch["fake"].requires_grad_()
    torch.testing.assert_close(
        objective.generator_loss(batch["critic"], fake), -p_fake.log().mean()
    )


def test_wgan_is_the_difference_of_mean_scores(batch):
    loss, seen = critic_loss(batch, objective="wgan")
    real, fake = batch["critic"](batch["real"]).mean(), batch["critic"](batch["fake"]).mean()
    torch.testing.assert_close(loss, fake - real)
    torch.testing.assert_close(seen["wasserstein"], (real - fake).detach())
    objective = build_objective(TrainConfig(objective="wgan"))
    torch.testing.assert_close(objective.generator_loss(batch["critic"], batch["fake"]), -fake)


def test_wgan_gp_adds_the_weighted_penalty(batch):
    loss, seen = critic_loss(batch, objective="wgan-gp", penalty_weight=7.0)
    alpha = torch.rand(
        6, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    ).unsqueeze(1)
    points = (alpha * batch["real"] + (1 - alpha) * batch["fake"]).requires_grad_()
    (gradient,) = torch.autograd.grad(batch["critic"](points).sum(), points, create_graph=True)
    norms = gradient.pow(2).sum(1).sqrt()
    penalty = ((norms - 1) ** 2).mean()
    real, fake = batch["critic"](batch["real"]).mean(), batch["critic"](batch["fake"]).mean()
    torch.testing.assert_close(loss, fake - real + 7 * penalty)
    expected = {
        "critic_loss": loss,
        "wasserstein": real - fake,
        "penalty": penalty,
        "gradient_norm": norms.mean(),
        "real_score": real,
        "fake_score": fake,
    }
    torch.testing.assert_close(seen, {name: value.detach() for name, value in expected.items()})


@pytest.mark.parametrize("objective", ["dcgan", "wgan", "wgan-gp"])
def test_what_is_logged_holds_no_graph(batch, objective):
    loss, seen = critic_loss(batch, objective=objective)
    assert loss.requires_grad
    for name, value in seen.items():
        assert value.shape == (), name
        assert not value.requires_grad, name


def test_only_wgan_constrains_the_weights():
    for objective in ("dcgan", "wgan", "wgan-gp"):
        critic = DCGANCritic(16, channels=4)
        before = [parameter.clone() for parameter in critic.parameters()]
        assert max(parameter.abs().max() for parameter in before) > 0.03
        build_objective(TrainConfig(objective=objective, clip_value=0.03)).constrain_(critic)
        limit = 0.03 if objective == "wgan" else float("inf")
        for parameter, was in zip(critic.parameters(), before, strict=True):
            torch.testing.assert_close(parameter.data, was.clamp(-limit, limit), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("objective", "kind", "settings"),
    [
        ("dcgan", torch.optim.Adam, {"lr": 2e-4, "betas": (0.5, 0.999)}),
        ("wgan", torch.optim.RMSprop, {"lr": 5e-5, "momentum": 0, "centered": False}),
        ("wgan-gp", torch.optim.Adam, {"lr": 1e-4, "betas": (0.0, 0.9)}),
    ],
)
def test_optimisers_are_the_papers(objective, kind, settings):
    config = TrainConfig(objective=objective)
    network = MLPGenerator(2, 2, 4)
    optimizer = build_objective(config).optimizer(network.parameters(), config.critic_learning_rate)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in settings} == settings
    assert group["weight_decay"] == 0
    assert len(group["params"]) == len(list(network.parameters()))
