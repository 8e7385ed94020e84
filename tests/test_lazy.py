"""Lazy regularisation: every k-th step the penalty, k times; between them none."""

import pytest
import torch
from torch import nn

from tests.double_backward.oracle import error, gradients
from wgan_fast import AdaptiveWeight, CriticLoss, reference
from wgan_fast.lazy import Lazy


def a_critic(norm):
    return nn.Sequential(nn.Linear(3, 6), norm(6), nn.Tanh(), nn.Linear(6, 1)).double()


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_every_kth_step_has_the_penalty_k_times(norm, drift):
    critic = a_critic(norm)
    loss = CriticLoss(critic, penalty="r1", weight=2.0, every=3, drift=drift)
    for step in range(7):
        real, fake = torch.randn(2, 5, 3, dtype=torch.float64)
        found = loss(real, fake)
        real_scores, fake_scores = critic(real), critic(fake)
        expected = fake_scores.mean() - real_scores.mean() + drift * real_scores.square().mean()
        if step % 3 == 0:
            expected = expected + 3 * 2.0 * reference.dual_norms(critic, real).square().mean()
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)
        assert error(gradients(found, critic), gradients(expected, critic)) < 1e-10


def test_evaluation_has_the_whole_loss_and_counts_nothing():
    critic = a_critic(nn.LayerNorm)
    real, fake = torch.randn(2, 5, 3, dtype=torch.float64)
    lazy = CriticLoss(critic, penalty="r1", every=4).eval()
    whole = CriticLoss(critic, penalty="r1").eval()
    for _ in range(3):
        assert lazy(real, fake).item() == whole(real, fake).item()
    assert lazy.lazy.steps == 0


def test_the_adaptive_weight_is_scaled_and_updated_when_due():
    critic = a_critic(nn.LayerNorm)
    adaptive = AdaptiveWeight(4.0)
    loss = CriticLoss(critic, penalty="zero", weight=adaptive, every=2)
    real, fake = torch.randn(2, 5, 3, dtype=torch.float64)
    alpha = torch.rand(5, dtype=torch.float64)
    found = loss(real, fake, alpha)
    expected = reference.critic_loss(critic, real, fake, alpha, weight=8.0, target=0.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    now = adaptive.weight.item()
    assert now != 4.0
    loss(real, fake, alpha)
    assert adaptive.weight.item() == now


def test_the_count_is_saved():
    loss = CriticLoss(nn.Linear(3, 1), every=16)
    for _ in range(5):
        loss(*torch.randn(2, 4, 3))
    again = CriticLoss(nn.Linear(3, 1), every=16)
    again.load_state_dict(loss.state_dict())
    assert again.lazy.steps == 5


@pytest.mark.parametrize(("of_one", "of_other"), [(3, 1), (1, 3), (3, 5)])
@pytest.mark.parametrize("wrap", [lambda module: module, nn.Sequential], ids=["alone", "within"])
def test_a_state_goes_into_a_module_with_another_period(of_one, of_other, wrap):
    real, fake = torch.randn(2, 4, 3, dtype=torch.float64)
    saved = CriticLoss(nn.Linear(3, 1).double(), penalty="r1", weight=2.0, every=of_one)
    for _ in range(4):
        saved(real, fake)
    state = wrap(saved).state_dict()
    keys = set(state)
    module = CriticLoss(nn.Linear(3, 1).double(), penalty="r1", weight=2.0, every=of_other)
    wrap(module).load_state_dict(state)
    assert set(state) == keys  # the caller's own dict
    steps = 4 if of_one > 1 else 0
    weight = module.critic.weight
    for step in range(steps, steps + 6):
        loss = module(real, fake) - (module.critic(fake).mean() - module.critic(real).mean())
        due = step % of_other == 0
        expected = of_other * 2.0 * weight.square().sum().item() * due
        assert loss.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


BAD = {
    "alpha's shape": ({}, {"alpha": torch.rand(3)}, "alpha: expected one number per sample"),
    "alpha unused": (
        {"penalty": "r1"},
        {"alpha": torch.rand(4)},
        "alpha, generator: expected None",
    ),
    "alpha's type": (
        {"penalty": "dragan"},
        {"alpha": torch.ones(4).long()},
        "alpha: expected a fl",
    ),
    "mask": ({}, {"mask": torch.ones(5)}, "mask: expected one that broadcasts"),
    "cond": ({}, {"cond": torch.ones(3)}, "cond: expected a row per sample"),
    "backend": ({"backend": "fast"}, {}, "backend: expected one of"),
    "chunk_size": ({"chunk_size": 0}, {}, "chunk_size: expected a positive number"),
    "slices": ({"chunk_size": 2, "backend": "autograd"}, {}, "chunk_size: backend="),
    "packs": ({"chunk_size": 3, "pac": 2}, {}, "chunk_size: expected whole packs"),
    "a maximum": ({"penalty": "max", "chunk_size": 2}, {}, "chunk_size: expected None with a pen"),
    "objective": (
        {"objective": lambda real, fake: (fake - real).mean(), "chunk_size": 2},
        {},
        "chunk_size: expected None with an objective",
    ),
}


@pytest.mark.parametrize(("options", "given", "message"), BAD.values(), ids=BAD)
def test_every_call_checks_its_arguments_and_one_that_raises_is_not_counted(
    options, given, message
):
    loss = CriticLoss(nn.Linear(3, 1), every=3, **options)
    real, fake = torch.randn(2, 4, 3)
    for steps in (0, 1, 2, 3):
        loss.lazy.steps = steps
        with pytest.raises((TypeError, ValueError), match=message):
            loss(real, fake, **given)
        assert loss.lazy.steps == steps


def test_a_critic_that_raises_is_not_counted():
    class Failing(nn.Linear):
        works = True

        def forward(self, x):
            if not self.works:
                raise RuntimeError("out of memory")
            return super().forward(x)

    critic = Failing(3, 1)
    loss = CriticLoss(critic, every=2, penalty="adaptive")
    real, fake = torch.randn(2, 4, 3)
    for steps in (0, 1, 2):
        critic.works = False
        with pytest.raises(RuntimeError, match="out of memory"):
            loss(real, fake)
        assert loss.lazy.steps == steps
        critic.works = True
        loss(real, fake)
        assert loss.lazy.steps == steps + 1


@pytest.mark.parametrize("every", [0, 2.0, True, None])
def test_checks_its_argument(every):
    with pytest.raises(ValueError, match=r"every: expected an integer of at least 1, got "):
        Lazy(every)
