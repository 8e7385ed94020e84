"""Every kind of critic, and hundreds of random ones: equal to the reference to 1e-10 in float64."""

import pytest
import torch
from torch import nn

import wgan_fast
from tests.conftest import SEED
from tests.double_backward.critics import CRITICS, Apply
from tests.double_backward.oracle import (
    ReferenceFails,
    errors_of,
    loss_error,
    penalty_error,
)
from wgan_fast.double_backward.errors import Unsupported

# Autograd's own double backward does not exist for these, under the default attention kernels.
WITHOUT_REFERENCE = ("attention", "masked attention", "multihead attention", "transformer eval")
# One batch draws its dropout masks in another order than three calls do.
RANDOM = ("Dropout", "RReLU", "FractionalMaxPool", "transformer")


@pytest.mark.parametrize("name", CRITICS)
def test_gradient_penalty(name):
    make, shape = CRITICS[name]
    critic = make().double()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert penalty_error(critic, shape) < 1e-10


@pytest.mark.parametrize("name", WITHOUT_REFERENCE)
def test_attention_works_where_autograd_fails(name):
    make, shape = CRITICS[name]
    with pytest.raises(ReferenceFails, match="attention"):
        penalty_error(make().double(), shape)


@pytest.mark.parametrize("name", [n for n in CRITICS if not any(word in n for word in RANDOM)])
def test_critic_loss(name):
    make, shape = CRITICS[name]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        critic = make().double()
        for options in ({"weight": 3.0, "drift": 0.2}, {"target": 0.3, "sided": "one"}):
            assert loss_error(critic, shape, "explicit", **options) < 1e-10


@pytest.mark.parametrize("part", range(10))
def test_random_critics(part):
    """Three hundred of them, other ones in every run."""
    compared = list(errors_of(range(SEED + 30 * part, SEED + 30 * part + 30)))
    assert len(compared) >= 25
    assert max(compared)[0] < 1e-10, max(compared)[1]


def test_float32_to_rounding():
    torch.manual_seed(SEED)
    for name in ("layer LayerNorm", "layer Conv strided", "activation SiLU", "dense", "LSTM"):
        make, shape = CRITICS[name]
        critic = make()
        real, fake = torch.randn(2, *shape)
        alpha = torch.rand(shape[0])
        wide = make().double()
        wide.load_state_dict(critic.state_dict())
        loss = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, backend="explicit")
        expected = wgan_fast.gradient_penalty(
            wide, real.double(), fake.double(), alpha=alpha.double(), backend="autograd"
        )
        assert abs(loss.item() - expected.item()) <= 1e-4 * abs(expected.item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast(dtype):
    critic = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.LayerNorm(32), nn.Linear(32, 1))
    real, fake = torch.randn(2, 8, 16)
    alpha = torch.rand(8)
    exact = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend="autograd")
    exact_gradients = torch.autograd.grad(exact, list(critic.parameters()))
    with torch.autocast("cpu", dtype):
        loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend="explicit")
        # A later call in the same block must still find its way to the weights.
        score = wgan_fast.generator_loss(critic, fake)
    assert loss.dtype == torch.float32
    for ours, theirs in zip(
        torch.autograd.grad(loss, list(critic.parameters())), exact_gradients, strict=True
    ):
        assert ours.dtype == torch.float32
        assert (ours - theirs).abs().max() <= 0.1 * theirs.abs().max() + 0.02
    assert all(g is not None for g in torch.autograd.grad(score, list(critic.parameters())))


def test_channels_last_is_kept():
    critic = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 3), nn.Flatten(),
        nn.Linear(288, 1),
    ).double()  # fmt: skip
    plain = loss_error(critic, (4, 3, 8, 8), "explicit")
    assert plain < 1e-10
    critic = critic.to(memory_format=torch.channels_last)
    real, fake = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    real = real.contiguous(memory_format=torch.channels_last)
    loss = wgan_fast.critic_loss(critic, real, fake, backend="explicit")
    loss.backward()
    assert critic[2].weight.grad.is_contiguous(memory_format=torch.channels_last)


def test_samples_that_see_each_other_are_not_merged():
    """A critic whose samples talk through a hidden channel of any kind gets three calls."""
    talkers = {
        "mean": lambda m, x: m[0](x - x.mean(0)),
        "cumulative sum": lambda m, x: m[0](x.cumsum(0)),
        "flip": lambda m, x: m[0](x + x.flip(0)),
        "roll": lambda m, x: m[0](x.roll(1, 0)),
        "sort": lambda m, x: m[0](x.sort(0).values),
        "outer": lambda m, x: m[0](x @ x.t() @ x),
        "broadcast": lambda m, x: m[0](x) + (x[:, :1] + x[:, 0]).mean(1, keepdim=True),
        "groups": lambda m, x: m[0](x * x.view(2, -1, 6).softmax(1).flatten(0, 1)),
        "control flow": lambda m, x: m[0](x) * (2 if (x > 1.5).any() else 1),
        "max": lambda m, x: m[0](x / x.amax()),
    }
    for name, function in talkers.items():
        critic = Apply(function, nn.Linear(6, 1)).double()
        assert loss_error(critic, (4, 6), "explicit") < 1e-10, name


def test_what_cannot_be_recorded_goes_to_autograd_or_raises():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * x * g

    def stale(m, x):
        hidden = m[0](x)
        view = hidden[:, :2]
        view.mul_(2)
        return hidden.tanh().sum(1)

    for function in (lambda m, x: m[0](Square.apply(x)).sum(1), stale):
        critic = Apply(function, nn.Linear(6, 4)).double()
        assert penalty_error(critic, (4, 6), "auto") < 1e-10
        assert loss_error(critic, (4, 6), "auto") < 1e-10
        critic = Apply(function, nn.Linear(6, 4)).double()
        with pytest.raises(Unsupported):
            penalty_error(critic, (4, 6), "explicit")


def test_state_and_random_numbers_survive_a_refusal():
    critic = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1)).double()
    assert loss_error(critic, (5, 6), "explicit") < 1e-10
    real, fake = torch.randn(2, 5, 6, dtype=torch.float64)
    wgan_fast.critic_loss(critic, real, fake)
    assert critic[1].num_batches_tracked == 3
