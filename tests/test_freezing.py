"""A frozen step against critic_loss, on other samples than it was frozen on."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

import wgan_fast
from tests.double_backward.critics import random_critic
from tests.double_backward.oracle import error, gradients, same_start, samples
from wgan_fast import TraceError, reference
from wgan_fast.models import DCGANCritic, MLPCritic

BATCH = 6


def batch(*shape, dtype=torch.float64):
    real, fake = torch.randn(2, BATCH, *shape, dtype=dtype)
    return real, fake, torch.rand(BATCH, dtype=dtype)


def mlp(*layers):
    return nn.Sequential(nn.Linear(3, 8), *layers, nn.Linear(8, 1)).double()


def assert_same_as_eager(step, critic, real, fake, alpha, **options):
    def frozen():
        loss = step(real, fake, alpha)
        return loss.detach(), gradients(loss, critic)

    def eager():
        loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, **options)
        return loss.detach(), gradients(loss, critic)

    value, mine = same_start(critic, frozen)
    expected, other = same_start(critic, eager)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    assert error(mine, other) < 1e-10


@pytest.mark.parametrize("seed", range(20_000, 20_040))
def test_random_critics(seed):
    torch.manual_seed(seed)
    critic, shape = random_critic(seed)
    critic = critic.double()
    step = wgan_fast.freeze(critic, samples(shape)[0])
    assert_same_as_eager(step, critic, *samples(shape))


@pytest.mark.parametrize(
    "options",
    [
        {"at": "real", "target": 0.0, "weight": 5.0},
        {"at": "both", "target": 0.0, "weight": 5.0},
        {"sided": "one", "drift": 1e-3},
        {"objective": "hinge"},
        {"objective": "relativistic", "at": "fake"},
    ],
)
@pytest.mark.parametrize("layer", [nn.ReLU(), nn.SiLU(), nn.BatchNorm1d(8)])
def test_every_setting(options, layer):
    critic = mlp(layer, nn.Tanh())
    step = wgan_fast.freeze(critic, batch(3)[0], **options)
    real, fake, alpha = batch(3)
    alpha = alpha if options.get("at", "mix") == "mix" else None
    assert_same_as_eager(step, critic, real, fake, alpha, **options)


def test_against_the_textbook_in_a_loop():
    critic = mlp(nn.LeakyReLU(0.2))
    twin = copy.deepcopy(critic)
    optimizers = [torch.optim.Adam(module.parameters(), lr=1e-2) for module in (critic, twin)]
    step = wgan_fast.freeze(critic, batch(3)[0])
    for _ in range(20):
        real, fake, alpha = batch(3)
        losses = step(real, fake, alpha), reference.critic_loss(twin, real, fake, alpha)
        torch.testing.assert_close(*losses, rtol=1e-8, atol=1e-10)
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for got, wanted in zip(critic.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)


def test_freezing_leaves_no_trace():
    critic = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(3, 8)), nn.BatchNorm1d(8), nn.Dropout()
    ).double()
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    real, *_ = batch(3)
    numbers = torch.get_rng_state()
    wgan_fast.freeze(critic, real)
    assert torch.equal(torch.get_rng_state(), numbers)
    for name, value in critic.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_buffers_are_updated_as_in_an_eager_step():
    critic = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(3, 8)), nn.BatchNorm1d(8), nn.Linear(8, 1)
    ).double()
    twin = copy.deepcopy(critic)
    step = wgan_fast.freeze(critic, batch(3)[0])
    for _ in range(3):
        real, fake, alpha = batch(3)
        step(real, fake, alpha).backward()
        wgan_fast.critic_loss(twin, real, fake, alpha=alpha).backward()
    for (name, got), wanted in zip(
        critic.named_buffers(), [buffer for _, buffer in twin.named_buffers()], strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12, msg=name)
    assert dict(critic.named_buffers())["1.num_batches_tracked"] == 9


def test_dropout_draws_in_every_step():
    critic = mlp(nn.ReLU(), nn.Dropout(0.5))
    real, fake, alpha = batch(3)
    step = wgan_fast.freeze(critic, real)
    first, second = step(real, fake, alpha), step(real, fake, alpha)
    assert first != second
    assert_same_as_eager(step, critic, real, fake, alpha)


# -- what is frozen, and what is frozen anew -------------------------------------------------------


def graphs(step):
    return sum(len(function._graphs) for function in step._frozen.values())


def flatter(critic, step):
    critic[1].negative_slope = 0.7


def evaluate(critic, step):
    critic.eval()


def freeze_bias(critic, step):
    critic[0].bias.requires_grad_(False)


def replace_layer(critic, step):
    critic[1] = nn.Tanh()


def replace_parameter(critic, step):
    critic[0].weight = nn.Parameter(torch.randn(8, 3, dtype=torch.float64))


def add_hook(critic, step):
    critic[0].register_forward_hook(lambda module, inputs, output: output * 2)


@pytest.mark.parametrize("calls_before", [0, 3])
@pytest.mark.parametrize(
    "change", [flatter, evaluate, freeze_bias, replace_layer, replace_parameter, add_hook]
)
def test_a_change_is_noticed(change, calls_before):
    critic = mlp(nn.LeakyReLU(0.2), nn.BatchNorm1d(8), nn.Tanh())
    step = wgan_fast.freeze(critic, batch(3)[0])
    for _ in range(calls_before):
        step(*batch(3))
    change(critic, step)
    real, fake, alpha = batch(3)
    wanted = [p for p in critic.parameters() if p.requires_grad]
    numbers = copy.deepcopy(critic.state_dict())
    mine = torch.autograd.grad(step(real, fake, alpha), wanted)
    critic.load_state_dict(numbers)
    loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend="autograd")
    assert error(mine, torch.autograd.grad(loss, wanted)) < 1e-10
    assert graphs(step) == 2


def test_a_partial_batch_another_dtype_and_another_layout_have_graphs_of_their_own():
    critic = DCGANCritic(16, channels=2, image_channels=1).double()
    real, fake, alpha = batch(1, 16, 16)
    step = wgan_fast.freeze(critic, real)
    assert_same_as_eager(step, critic, real[:4], fake[:4], alpha[:4])
    assert graphs(step) == 2
    assert_same_as_eager(step, critic, real.mT, fake.mT, alpha)
    assert graphs(step) == 3
    critic.float()
    loss = step(real.float(), fake.float(), alpha.float())
    torch.testing.assert_close(
        loss, reference.critic_loss(critic, real.float(), fake.float(), alpha.float()),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    assert graphs(step) == 4


def test_graphs_that_are_given_up_are_gone():
    critic = mlp(nn.ReLU())
    real, fake, alpha = batch(3)
    step = wgan_fast.freeze(critic, real)
    step(real, fake, alpha)
    (function,) = step._frozen.values()
    first = weakref.ref(next(iter(function._graphs.values())))
    for rows in range(1, 10):
        step(
            torch.cat([real] * 2)[:rows],
            torch.cat([fake] * 2)[:rows],
            torch.rand(rows, dtype=torch.float64),
        )
    gc.collect()
    assert first() is None


def test_numbers_are_read_when_a_step_runs():
    critic = mlp(nn.ReLU())
    real, fake, alpha = batch(3)
    step = wgan_fast.freeze(critic, real)
    for weight in (10.0, 2.5, 0.0):
        step.weight = weight
        with torch.no_grad():
            critic[0].weight.mul_(1.1)
        assert_same_as_eager(step, critic, real, fake, alpha, weight=weight)
    critic.load_state_dict(mlp(nn.ReLU()).state_dict())
    assert_same_as_eager(step, critic, real, fake, alpha, weight=0.0)
    assert graphs(step) == 1


def test_a_weight_that_is_refused_is_refused_again():
    critic = mlp(nn.ReLU())
    real, fake, alpha = batch(3)
    step = wgan_fast.freeze(critic, real)
    step.weight = None
    for _ in range(2):
        with pytest.raises(TypeError):
            step.value_and_grad(real, fake, alpha)


def test_a_closure_that_is_given_another_module_or_tensor():
    held = {"labels": torch.randn(BATCH, 3, dtype=torch.float64), "net": mlp(nn.ReLU())}
    labels, net = held["labels"], held["net"]

    def critic(x):
        return net(x + labels)

    real, fake, alpha = batch(3)
    step = wgan_fast.freeze(critic, real)
    labels = torch.randn(BATCH, 3, dtype=torch.float64)
    frozen = torch.autograd.grad(step(real, fake, alpha), list(net.parameters()))
    loss = reference.critic_loss(critic, real, fake, alpha)
    assert error(frozen, torch.autograd.grad(loss, list(net.parameters()))) < 1e-10
    labels.mul_(2)  # the same tensor, read as it is now
    frozen = torch.autograd.grad(step(real, fake, alpha), list(net.parameters()))
    loss = reference.critic_loss(critic, real, fake, alpha)
    assert error(frozen, torch.autograd.grad(loss, list(net.parameters()))) < 1e-10


# -- what behaves as critic_loss's result does -----------------------------------------------------


def test_backward_scales_accumulates_and_runs_hooks():
    critic = mlp(nn.ReLU())
    real, fake, alpha = batch(3)
    step = wgan_fast.freeze(critic, real)
    wanted = gradients(wgan_fast.critic_loss(critic, real, fake, alpha=alpha), critic)
    seen = []
    critic[0].weight.register_hook(lambda gradient: seen.append(gradient))
    (step(real, fake, alpha) * 3).backward()
    step(real, fake, alpha).backward()
    assert error([p.grad for p in critic.parameters()], [4 * g for g in wanted]) < 1e-10
    assert len(seen) == 2


def test_statistics_and_values():
    critic = mlp(nn.ReLU())
    real, fake, alpha = batch(3)
    step = wgan_fast.freeze(critic, real)
    loss, stats = step(real, fake, alpha, return_stats=True)
    expected = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, return_stats=True)
    torch.testing.assert_close((loss, stats), expected)
    assert not any(value.requires_grad for value in stats)
    with torch.no_grad():
        assert not step(real, fake, alpha).requires_grad
    one, other = (step(real, fake, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert one == other


def test_autocast():
    critic = mlp(nn.ReLU()).float()
    real, fake, alpha = batch(3, dtype=torch.float32)
    step = wgan_fast.freeze(critic, real)
    plain = step(real, fake, alpha)
    with torch.autocast("cpu", torch.bfloat16):
        loss = step(real, fake, alpha)
        expected = wgan_fast.critic_loss(critic, real, fake, alpha=alpha)
    assert graphs(step) == 2
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=1e-2)
    assert loss != plain


def test_compiled():
    critic = mlp(nn.ReLU(), nn.LayerNorm(8), nn.Dropout(0.2))
    step = wgan_fast.freeze(critic, batch(3)[0], compile=True)
    assert_same_as_eager(step, critic, *batch(3))
    assert_same_as_eager(step, critic, *batch(3))


def test_the_graph_is_flat_and_of_first_order():
    critic = mlp(nn.ReLU())
    real, *_ = batch(3)
    step = wgan_fast.freeze(critic, real)
    names = [str(op) for op in step.graph(real).ops]
    assert "aten.threshold_backward.grad_input" in names
    assert len(names) < 80
    assert not any("zeros" in name for name in names)
    assert step.graph(real[:2]) is None


def test_torch_compile_refuses_what_is_frozen_here():
    critic = torch.compile(mlp(nn.ReLU()), backend="aot_eager")
    real, fake, alpha = batch(3)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        reference.critic_loss(critic, real, fake, alpha).backward()
    step = wgan_fast.freeze(critic, real)
    assert_same_as_eager(step, critic._orig_mod, real, fake, alpha)


# -- what cannot be frozen -------------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        scores = self.layer(x)
        return scores if scores.mean() > 0 else 2 * scores


class ReadingItsBuffer(Branching):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return self.layer(x) * self.scale.item()


class Counting(Branching):
    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return self.layer(x) * self.calls


def test_critics_that_no_graph_stands_for():
    real = torch.randn(BATCH, 3)
    for critic in (Branching(), ReadingItsBuffer()):
        with pytest.raises(TraceError, match="reads a number out of a tensor"):
            wgan_fast.freeze(critic, real)
    with pytest.raises(TraceError, match=r"frozen and eager differ, first in .*loss"):
        wgan_fast.freeze(Counting(), real)

    hooked = Branching().layer
    hooked.register_full_backward_hook(lambda *_: None)
    with pytest.raises(TraceError, match="a Linear has backward hooks"):
        wgan_fast.freeze(hooked, real)

    stray = torch.randn(3, 1, requires_grad=True)
    layer = nn.Linear(3, 3)
    with pytest.raises(TraceError, match="belongs to none of its modules"):
        wgan_fast.freeze(lambda x: layer(x) @ stray, real)

    step = wgan_fast.freeze(layer, real)
    loss = step(real, real + 1)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(loss, list(layer.parameters()), create_graph=True)


def test_arguments():
    critic, real = nn.Linear(3, 1), torch.randn(BATCH, 3)
    with pytest.raises(TypeError, match="critic: "):
        wgan_fast.freeze(3, real)
    with pytest.raises(ValueError, match="at: "):
        wgan_fast.freeze(critic, real, at="everywhere")
    step = wgan_fast.freeze(critic, real)
    with pytest.raises(ValueError, match="fake: expected the shape of real"):
        step(real, real[:3])
    with pytest.raises(ValueError, match="alpha: "):
        step(real, real, torch.rand(3))
    with pytest.raises(ValueError, match="alpha, generator: expected None"):
        wgan_fast.freeze(critic, real, at="real")(real, real, torch.rand(BATCH))
    assert MLPCritic(2)  # the same package's critic can be frozen without options
    wgan_fast.freeze(MLPCritic(2), torch.randn(4, 2))
