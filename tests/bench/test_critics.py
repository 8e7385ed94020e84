"""Every side of every critic's step is right, to the last digits of float64."""

from dataclasses import replace

import pytest
import torch

from bench.critic_steps import CASES
from bench.critics import CRITICS, Problem
from bench.harness.agreement import check_agreement

CPU = torch.device("cpu")


def exact(case):
    """The case on a few samples, in float64."""

    def problem(device):
        critic, *samples = case.problem(device)
        return Problem(critic.double(), *(x[:4].double() for x in samples))

    return replace(case, problem=problem)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_sides_agree(case):
    case = exact(case)
    runs = {side: case.start(side, CPU) for side in case.sides if side not in case.compiled}
    check_agreement(runs, 1e-9, CPU)


@pytest.mark.parametrize("critic", CRITICS, ids=lambda critic: critic.name)
def test_a_critic_scores_each_sample(critic):
    model, real, fake, alpha = critic.problem(CPU)
    assert real.shape == fake.shape == (critic.batch, *critic.sample_shape)
    assert alpha.shape == (critic.batch,)
    scores = model(real[:2])
    assert scores.shape[0] == scores.numel() == 2
    again = critic.problem(CPU)
    assert torch.equal(again.real, real)
    assert torch.equal(again.critic(real[:2]), scores)


def test_what_is_claimed():
    said = {
        (case.name, figure.side): figure.bound
        for case in CASES
        for figure in case.figures
        if figure.measure == "speed-up"
    }
    default = {name: bound for (name, side), bound in said.items() if side == "wgan_fast"}
    assert default == {
        "critic_loss/toy-mlp": 1.6,
        "critic_loss/tabular-mlp": 1.35,
        "critic_loss/mlp-784": 1.35,
        "critic_loss/dcgan-32": 1.4,
        "critic_loss/dcgan-64": 1.2,
        "critic_loss/resnet-layer": 1.15,
        "critic_loss/resnet-instance": 1.15,
        "critic_loss/resnet-group": 1.15,
        "critic_loss/attention": 0.98,
        "critic_loss/signals": 0.98,
        "gradient_penalty/toy-mlp": 0.98,
        "gradient_penalty/tabular-mlp": 0.98,
        "gradient_penalty/mlp-784": 0.98,
        "gradient_penalty/dcgan-32": 1.5,
        "gradient_penalty/dcgan-64": 1.5,
        "gradient_penalty/resnet-layer": 0.98,
        "gradient_penalty/resnet-instance": 0.98,
        "gradient_penalty/resnet-group": 0.98,
        "gradient_penalty/attention": 0.98,
        "gradient_penalty/signals": 0.98,
        "R1/dcgan-32": 1.25,
        "R1/dcgan-64": 1.25,
        "R1+R2/dcgan-32": 1.4,
        "R1+R2/dcgan-64": 1.4,
    }
    assert said["critic_loss/dcgan-32", "wgan_fast, channels_last"] == 1.6
    assert said["critic_loss/dcgan-64", "wgan_fast, channels_last"] == 1.3
