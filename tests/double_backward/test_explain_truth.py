"""``explain`` tells what the calls really do, and leaves no trace."""

import pytest
import torch
from torch import nn

import wgan_fast
from tests.double_backward.critics import CRITICS
from tests.double_backward.test_explain import CALLS, WIDTH, Square, batch, mlp, routes
from tests.double_backward.test_independence import PowerIteration
from wgan_fast.double_backward import choice
from wgan_fast.double_backward.explicit import Explicit
from wgan_fast.examination import graph_of


def everything(critic):
    """All that must stay as it is."""
    tensors = [*critic.parameters(), *critic.buffers()]
    return (
        [id(tensor) for tensor in tensors],
        [tensor.detach().clone().tolist() for tensor in tensors],
        [tensor._version for tensor in tensors],
        [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in critic.parameters()],
        [
            (id(memory._known), dict(memory._known.get(critic, {})))
            for memory in choice.Memory._every
        ],
        torch.random.get_rng_state().tolist(),
        [module.training for module in critic.modules()],
    )


LAYERS = ("BatchNorm", "InstanceNorm tracked", "spectral norm", "Dropout2d", "LayerNorm")
NAMES = [
    name
    for name in CRITICS
    if not name.startswith(("layer", "activation")) or name.removeprefix("layer ") in LAYERS
]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_told_is_what_happens_and_leaves_no_trace(name):
    make, shape = CRITICS[name]
    critic, (real, fake) = make().double(), torch.randn(2, *shape, dtype=torch.float64)
    wgan_fast.gradient_penalty(critic, real, fake).backward()
    before = everything(critic)
    explained = wgan_fast.explain(critic, real)
    assert everything(critic) == before

    sizes = []
    critic.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    for call, route in routes(explained).items():
        with choice.Memory.blank():
            CALLS[call](critic, real, fake)
            sizes.clear()
            loss = CALLS[call](critic, real, fake)
        explicit = any(isinstance(node, Explicit._backward_cls) for node in graph_of(loss))
        assert (route.backend == "explicit") is explicit, call
        if call == "critic_loss":
            assert explained.merged is (sizes == [3 * len(real)])


@pytest.mark.parametrize("known", ["unsupported", "unmerged", "proven"])
def test_what_is_remembered_stays(known):
    net = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    net.train(known == "unmerged")

    def critic(x):
        return net(Square.apply(x) if known == "unsupported" else x)

    real, fake = batch(), batch()
    wgan_fast.critic_loss(critic, real, fake)
    before = everything(net)
    assert any(about for _, about in before[4])
    wgan_fast.explain(critic, real)
    assert everything(net) == before


class Hidden:
    """A critic behind which nobody finds the modules."""

    def __init__(self):
        self.nets = [PowerIteration("buffer"), nn.BatchNorm1d(WIDTH)]
        self.count = torch.zeros(1)

    def __call__(self, x):
        self.count += 1
        return self.nets[0].net(self.nets[1](x))


def test_state_that_nobody_finds_is_put_back():
    critic = Hidden()
    norm = critic.nets[1]
    wgan_fast.explain(critic, batch())
    assert critic.count.item() == 0
    assert norm.num_batches_tracked.item() == 0
    assert torch.equal(norm.running_mean, torch.zeros(WIDTH))
    assert torch.equal(norm.running_var, torch.ones(WIDTH))


def test_state_that_is_replaced_is_put_back():
    critic = PowerIteration("buffer")
    u = critic.u
    explained = wgan_fast.explain(critic, batch())
    assert critic.u is u
    assert explained.unmerged_reason == "the critic replaces its own state in every call"


def test_samples_are_not_written_into():
    net, x = mlp(), batch()
    before = x.clone()
    explained = wgan_fast.explain(lambda x: net(x.mul_(2)), x)
    assert torch.equal(x, before)
    assert explained.gradient_penalty.backend == "explicit"
