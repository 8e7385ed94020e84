"""The fakes of all critic steps: from one call of the generator, in parts, or a call per step."""

import copy

import pytest
import torch
from torch import nn

from wgan_fast import CriticLoop
from wgan_fast.double_backward.apart import keeps_apart
from wgan_fast.frozen_function import FrozenFunction
from wgan_fast.models import MLPCritic
from wgan_fast.ops.registration import EXTENSION_MISSING
from wgan_fast.sample_forms import Form
from wgan_fast.side_by_side import SideBySide
from wgan_fast.steps import sampling, sampling_apart

needs_extension = pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here")


def generator(*layers):
    return nn.Sequential(nn.Linear(4, 8), *layers, nn.Linear(8, 3)).double()


def frozen(module, batch, steps):
    form = Form(torch.randn(batch, 3, dtype=torch.float64), 1)
    return FrozenFunction(
        sampling(module, form, steps), [module], lambda: ["the fakes"], "captured",
        sampling_apart(module, steps), rows=(0,),
    )  # fmt: skip


@needs_extension
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("batch", [16, 15])
def test_in_parts_where_they_are_equal(steps, batch):
    module = generator(nn.ReLU())
    function = frozen(module, batch, steps)
    z = torch.randn(steps * batch, 4, dtype=torch.float64)
    (fakes,) = function(z)
    torch.testing.assert_close(fakes, module(z).detach(), rtol=1e-12, atol=1e-12)
    (graph,) = function._graphs.values()
    assert isinstance(graph, SideBySide) == (batch == 16)


class Counting(nn.Module):
    """Rows that see each other: each is told how many came with it."""

    def forward(self, x):
        return x * len(x)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.Dropout(), Counting()], ids=str)
def test_a_call_for_each_step_where_samples_may_see_each_other(layer):
    module = generator(layer, nn.Tanh())
    twin = copy.deepcopy(module)
    function = frozen(module, 16, 3)
    z = torch.randn(48, 4, dtype=torch.float64)
    start = torch.get_rng_state()
    (fakes,) = function(z)
    torch.set_rng_state(start)
    expected = torch.cat([twin(part) for part in z.chunk(3)])
    torch.testing.assert_close(fakes, expected.detach(), rtol=1e-10, atol=1e-10)
    for one, other in zip(module.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert not keeps_apart(module, z.chunk(3))


def descent(module):
    return torch.optim.SGD(module.parameters(), 1e-2)


@pytest.mark.parametrize("mode", ["captured", "eager"])
def test_as_many_samples_in_another_number_of_steps(mode):
    """z has the same shape then, and the batches whose statistics are taken have not."""
    networks = generator(nn.BatchNorm1d(8), nn.Tanh()), MLPCritic(3, 8).double()
    loops = []
    for one in (mode, "eager"):
        pair = copy.deepcopy(networks)
        loops.append(
            CriticLoop(
                *pair, *map(descent, pair), latent_shape=4, mode=one,
                rng=torch.Generator().manual_seed(2),
            )
        )  # fmt: skip
    fresh = loops[1]
    for steps, batch in ((2, 12), (3, 8), (2, 12), (4, 6)):
        reals = torch.randn(steps, batch, 3, dtype=torch.float64)
        loops[0].n_critic = steps
        # Whatever it has learnt of other numbers of steps is not with the other one.
        fresh = CriticLoop(
            fresh.generator, fresh.critic, fresh.generator_optimizer, fresh.critic_optimizer,
            latent_shape=4, mode="eager", rng=fresh.rng, n_critic=steps,
        )  # fmt: skip
        for one, other in zip(loops[0](reals), fresh(reals), strict=True):
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    pairs = ((loops[0].generator, fresh.generator), (loops[0].critic, fresh.critic))
    for ours, theirs in pairs:
        for one, other in zip(
            ours.state_dict().values(), theirs.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
