"""The captured loop on a real GPU: what capture_recorder stands in for elsewhere."""

import copy

import pytest
import torch

from wgan_fast import CriticLoop
from wgan_fast.cuda_graph import WARM_UP_CALLS, CUDAGraph, StaticInput
from wgan_fast.models import DCGANCritic, DCGANGenerator

pytestmark = pytest.mark.cuda
N_CRITIC, BATCH, LATENT = 2, 8, 4


def loop(generator, critic, objective, mode, capturable=True):
    def optimizer(module):
        if objective == "wgan":
            return torch.optim.RMSprop(module.parameters(), lr=1e-3, capturable=capturable)
        return torch.optim.Adam(
            module.parameters(), lr=1e-3, betas=(0.0, 0.9), fused=True, capturable=capturable
        )

    return CriticLoop(
        generator, critic, optimizer(generator), optimizer(critic), latent_shape=LATENT,
        objective=objective, n_critic=N_CRITIC, mode=mode,
        rng=torch.Generator("cuda").manual_seed(7),
    )  # fmt: skip


def networks():
    size = {"channels": 8, "image_channels": 1}
    pair = DCGANGenerator(16, latent_dim=LATENT, **size), DCGANCritic(16, **size)
    return [module.to("cuda", torch.float64) for module in pair]


@pytest.mark.parametrize("mode", ["captured", "compiled"])
@pytest.mark.parametrize("objective", ["wgan-gp", "wgan", "dcgan"])
def test_replays_equal_eager(objective, mode):
    modules = networks()
    captured = loop(*copy.deepcopy(modules), objective, mode)
    eager = loop(*copy.deepcopy(modules), objective, "eager")
    for step in range(WARM_UP_CALLS + 20):
        captured.weight = eager.weight = 10.0 if step < 10 else 3.0
        size = BATCH if step != 8 else 3
        reals = torch.randn(N_CRITIC, size, 1, 16, 16, device="cuda", dtype=torch.float64).tanh()
        captured(reals)
        eager(reals)
    for one, other in ((captured.generator, eager.generator), (captured.critic, eager.critic)):
        for (name, got), wanted in zip(
            one.state_dict().items(), other.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9, msg=name)


class Labelled(torch.nn.Module):
    """A generator, or a critic, that takes labels: a row of a table is added to its input."""

    def __init__(self, module, numbers):
        super().__init__()
        self.table, self.module = torch.nn.Embedding(10, numbers), module

    def forward(self, x, labels):
        one_hot = torch.nn.functional.one_hot(labels, 10).to(x.dtype)
        return self.module(x + (one_hot @ self.table.weight + self.table(labels)).view_as(x))


@pytest.mark.parametrize("mode", ["captured", "compiled"])
def test_replays_read_other_labels(mode):
    generator, critic = networks()
    modules = [Labelled(generator, LATENT), Labelled(critic, 256)]
    modules = [module.to("cuda", torch.float64) for module in modules]
    captured = loop(*copy.deepcopy(modules), "wgan-gp", mode)
    eager = loop(*copy.deepcopy(modules), "wgan-gp", "eager")
    for step in range(WARM_UP_CALLS + 20):
        size = BATCH if step != 8 else 3
        reals = torch.randn(N_CRITIC, size, 1, 16, 16, device="cuda", dtype=torch.float64).tanh()
        labels = torch.randint(10, (N_CRITIC + 1, size), device="cuda")
        captured(reals, labels[1:], labels[0])
        eager(reals, labels[1:], labels[0])
    for one, other in ((captured.generator, eager.generator), (captured.critic, eager.critic)):
        for (name, got), wanted in zip(
            one.state_dict().items(), other.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9, msg=name)


def test_auto_goes_on_eagerly_where_the_optimiser_cannot_be_captured(caplog):
    modules = networks()
    fallen = loop(*copy.deepcopy(modules), "wgan-gp", "auto", capturable=False)
    eager = loop(*copy.deepcopy(modules), "wgan-gp", "eager")
    for _ in range(WARM_UP_CALLS + 3):
        reals = torch.randn(N_CRITIC, BATCH, 1, 16, 16, device="cuda", dtype=torch.float64)
        fallen(reals)
        eager(reals)
    assert any("runs eagerly" in line.getMessage() for line in caplog.records)
    for got, wanted in zip(fallen.critic.parameters(), eager.critic.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9)


def test_a_graph_reads_its_static_input():
    graph, source = CUDAGraph(torch.device("cuda")), StaticInput(torch.ones(3, device="cuda"))
    result = graph.warm_up(lambda: source.tensor * 2)
    result = graph.capture(lambda: source.tensor * 2)
    source.fill(torch.full((3,), 5.0, device="cuda"))
    graph.replay()
    torch.testing.assert_close(result, torch.full((3,), 10.0, device="cuda"))
