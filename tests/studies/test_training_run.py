import pytest
import torch

from wgan_fast.studies.training_run import TrainingRun, watched
from wgan_fast.training import NonFiniteLossError, TrainConfig

CPU = torch.device("cpu")
TINY = {"data": "gaussians-8", "hidden_dim": 8, "batch_size": 4, "n_critic": 2}
pytestmark = pytest.mark.usefixtures("without_graphs")


def test_watching_changes_nothing():
    runs = [TrainingRun(TrainConfig(**TINY), CPU) for _ in range(2)]
    for _ in range(3):
        for run in runs:
            run.step()
        runs[0].samples(5)
        runs[0].gradient_norms(5)
        runs[0].losses()
    for network in ("generator", "critic"):
        watched, alone = (getattr(run, network).state_dict() for run in runs)
        for name in watched:
            assert torch.equal(watched[name], alone[name]), name


def test_what_is_watched_is_what_it_says():
    run = TrainingRun(TrainConfig(**TINY), CPU)
    assert run.losses() == {}
    real, fake = run.samples(7)
    assert real.shape == fake.shape == (7, 2)
    assert not torch.equal(real, run.samples(7)[0])
    assert torch.equal(run.scores(real), run.critic(real).detach())
    norms = run.gradient_norms(7)
    assert norms.shape == (7,)
    assert not norms.requires_grad
    run.step()
    assert set(run.losses()) == {"critic_loss", "generator_loss"}


def test_it_is_watched_at_moments_of_the_studys_steps(conditions):
    runs = [TrainingRun(TrainConfig(**TINY), CPU) for _ in range(2)]
    seen = [(step, runs[0].losses()) for step in watched(runs[0], conditions(5), "here", 2)]
    expected = []
    for step in range(1, 6):
        runs[1].step()
        if step in (3, 5):
            expected.append((step, runs[1].losses()))
    assert seen == expected


def test_networks_of_ones_own_are_the_ones_trained():
    def halved(generator, critic):
        with torch.no_grad():
            for parameter in critic.parameters():
                parameter.mul_(0.5)
        return generator, critic

    usual = TrainingRun(TrainConfig(**TINY), CPU)
    run = TrainingRun(TrainConfig(**TINY), CPU, halved)
    before = [parameter.clone() for parameter in run.critic.parameters()]
    for parameter, other in zip(before, usual.critic.parameters(), strict=True):
        assert torch.equal(parameter, other / 2)
    run.step()
    changed = [not torch.equal(a, b) for a, b in zip(before, run.critic.parameters(), strict=True)]
    assert any(changed)


def test_a_loss_that_is_not_finite():
    run = TrainingRun(TrainConfig(**TINY, critic_learning_rate=1e30), CPU)
    for _ in range(8):
        run.step()
    with pytest.raises(NonFiniteLossError, match="training broke down at or just before step 8"):
        run.losses()
