"""``backend="first_order"``: as near as its docstring says, on critics that have no other way."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wgan_fast
from tests.double_backward.critics import Apply
from wgan_fast.double_backward.errors import Unsupported

SEQUENCES, IMAGES = (12, 9, 8), (8, 3, 8, 8)


class OnceOnly(torch.autograd.Function):
    """tanh, with a derivative and no more."""

    @staticmethod
    def forward(ctx, x):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, delta):
        (y,) = ctx.saved_tensors
        return delta * (1 - y * y)


def lstm():
    return Apply(
        lambda parts, x: parts[1](parts[0](x)[0][:, -1]),
        nn.LSTM(8, 16, 2, batch_first=True), nn.Linear(16, 1),
    )  # fmt: skip


def flash_attention():
    def forward(parts, x):
        q, k, v = parts[0](x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        return parts[1](F.scaled_dot_product_attention(q, k, v).flatten(1).tanh())

    return Apply(forward, nn.Linear(8, 48), nn.Linear(2 * 9 * 8, 1))


def once_only():
    return Apply(
        lambda parts, x: parts[1](OnceOnly.apply(parts[0](x.flatten(1)))),
        nn.Linear(72, 16), nn.Linear(16, 1),
    )  # fmt: skip


def the_same_for_autograd(critic):
    """``once_only`` with the tanh that autograd can differentiate twice."""
    return Apply(lambda parts, x: parts[1](parts[0](x.flatten(1)).tanh()), *critic.parts)


def error(got, expected):
    off = sum((a.double() - b).square().sum() for a, b in zip(got, expected, strict=True))
    return (off / sum(b.square().sum() for b in expected)).sqrt().item()


def gradients(loss, critic):
    return torch.autograd.grad(loss, list(critic.parameters()), materialize_grads=True)


def samples(shape, dtype):
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    return real.to(dtype), fake.to(dtype), torch.rand(shape[0], dtype=torch.float64)


CRITICS = {"LSTM": lstm, "flash attention": flash_attention, "custom Function": once_only}
# What the module's docstring states, with room for other random numbers.
WITHIN = {torch.float64: 1e-8, torch.float32: 1e-3}


@pytest.mark.parametrize("dtype", WITHIN, ids=str)
@pytest.mark.parametrize("name", CRITICS)
def test_near_the_exact_gradient(name, dtype):
    critic = CRITICS[name]().to(dtype)
    exact = copy.deepcopy(critic).double()
    oracle = the_same_for_autograd(exact) if name == "custom Function" else exact
    real, fake, alpha = samples(SEQUENCES, dtype)
    options = {"target": 0.3, "sided": "two"}
    loss, stats = wgan_fast.gradient_penalty(
        critic, real, fake, alpha=alpha, backend="first_order", return_stats=True, **options
    )
    expected = wgan_fast.gradient_penalty(
        oracle, real.double(), fake.double(), alpha=alpha, backend="explicit", **options
    )
    assert abs(loss.item() - expected.item()) <= 1e-5 * expected.item()
    torch.testing.assert_close(stats.penalty, loss.detach())
    assert error(gradients(loss, critic), gradients(expected, exact)) < WITHIN[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast(dtype):
    critic = flash_attention()
    real, fake, alpha = samples(SEQUENCES, torch.float32)
    with torch.autocast("cpu", dtype):
        loss = wgan_fast.gradient_penalty(
            critic, real, fake, alpha=alpha, target=0.3, backend="first_order"
        )
    exact = copy.deepcopy(critic).double()
    expected = wgan_fast.gradient_penalty(
        exact, real.double(), fake.double(), alpha=alpha, target=0.3
    )
    assert error(gradients(loss, critic), gradients(expected, exact)) < 0.1


@pytest.mark.parametrize("at", ["mix", "real", "fake", "both"])
def test_critic_loss_everywhere(at):
    critic = nn.Sequential(nn.Flatten(), nn.Linear(72, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    real, fake, alpha = samples(SEQUENCES, torch.float64)
    options = {"at": at, "target": 0.0, "drift": 0.1, "objective": "nonsaturating"}
    options |= {"alpha": alpha} if at == "mix" else {}
    loss, stats = wgan_fast.critic_loss(
        critic, real, fake, backend="first_order", return_stats=True, **options
    )
    expected, wanted = wgan_fast.critic_loss(
        critic, real, fake, backend="explicit", return_stats=True, **options
    )
    assert error(gradients(loss, critic), gradients(expected, critic)) < 1e-8
    for got, want in zip(stats, wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_dropout_batch_norm_and_what_they_leave_behind():
    """Three calls, and the masks, the statistics and the random numbers are those of one."""

    def make():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.4),
            nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(144, 1)),
        ).double()  # fmt: skip

    real, fake, alpha = samples(IMAGES, torch.float64)
    found = []
    for backend in ("first_order", "autograd"):
        critic = make()
        loss = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, backend=backend)
        found.append((gradients(loss, critic), critic.state_dict(), torch.get_rng_state()))
    (got, state, numbers), (expected, wanted, wanted_numbers) = found
    assert error(got, expected) < 1e-7
    for key, value in state.items():
        if "running" not in key:  # the last of the three calls is a step away
            assert torch.equal(value, wanted[key]), key
        torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-4)
    assert torch.equal(numbers, wanted_numbers)


def test_where_nothing_is_to_be_moved():
    critic = nn.Linear(4, 1).double()
    zeros = torch.zeros(5, 4, dtype=torch.float64)
    loss = wgan_fast.gradient_penalty(critic, zeros, zeros, backend="first_order")
    expected = wgan_fast.gradient_penalty(critic, zeros, zeros, backend="autograd")
    assert error(gradients(loss, critic), gradients(expected, critic)) < 1e-8
    satisfied = wgan_fast.gradient_penalty(
        critic, zeros, zeros, backend="first_order", sided="one", target=1e3
    )
    assert satisfied.item() == 0.0
    assert all(not g.any() for g in gradients(satisfied, critic))


def test_kinks_are_told_of_once():
    real, fake, _ = samples(SEQUENCES, torch.float32)
    kinked = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.LeakyReLU(), nn.Linear(8, 1))
    with pytest.warns(UserWarning, match="leaky_relu"):
        wgan_fast.gradient_penalty(kinked, real, fake, backend="first_order")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wgan_fast.gradient_penalty(kinked, real, fake, backend="first_order")
        wgan_fast.gradient_penalty(lstm(), real, fake, backend="first_order")


def test_kinks_before_packs_are_formed():
    class Packing(nn.Module):
        def __init__(self):
            super().__init__()
            self.each, self.pack = nn.Linear(6, 4), nn.Linear(8, 1)

        def forward(self, x):
            return self.pack(self.each(x).relu().view(-1, 8))

    with pytest.warns(UserWarning, match="kinks \\(relu\\)"):
        wgan_fast.gradient_penalty(Packing(), *torch.randn(2, 8, 6), pac=2, backend="first_order")


def test_the_value_alone():
    critic = lstm()
    real, fake, alpha = samples(SEQUENCES, torch.float32)
    with torch.no_grad():
        got = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, backend="first_order")
    expected = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha)
    assert not got.requires_grad
    torch.testing.assert_close(got, expected.detach())


def test_what_it_cannot_do():
    critic = lstm()
    real, fake, _ = samples(SEQUENCES, torch.float32)
    loss = wgan_fast.gradient_penalty(critic, real, fake, backend="first_order")
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(loss, list(critic.parameters()), create_graph=True)
    with pytest.raises(Unsupported, match=r"first_order.*reduction"):
        wgan_fast.gradient_penalty(critic, real, fake, backend="first_order", reduction="none")
    with pytest.raises(Unsupported, match=r"first_order.*detach=False"):
        wgan_fast.gradient_penalty(
            critic, real.requires_grad_(), fake, backend="first_order", detach=False
        )
    with pytest.raises(ValueError, match="chunk_size"):
        wgan_fast.gradient_penalty(critic, real, fake, backend="first_order", chunk_size=4)


def test_an_op_without_double_backward_is_named_and_so_is_the_way_out():
    @torch.library.custom_op("wgan_fast_tests::once", mutates_args=())
    def once(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    @torch.library.custom_op("wgan_fast_tests::once_backward", mutates_args=())
    def once_backward(x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        return x.cos() * delta

    once.register_autograd(
        lambda ctx, delta: once_backward(*ctx.saved_tensors, delta),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    critic = Apply(
        lambda parts, x: parts[1](once(parts[0](x.flatten(1)))), nn.Linear(72, 8), nn.Linear(8, 1)
    ).double()
    real, fake, alpha = samples(SEQUENCES, torch.float64)
    for backend in ("auto", "explicit"):
        with pytest.raises(Unsupported, match=r'wgan_fast_tests\.once.*backend="first_order"'):
            wgan_fast.gradient_penalty(critic, real, fake, backend=backend)
    loss = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha, backend="first_order")
    plain = Apply(lambda parts, x: parts[1](parts[0](x.flatten(1)).sin()), *critic.parts)
    expected = wgan_fast.gradient_penalty(plain, real, fake, alpha=alpha)
    assert error(gradients(loss, critic), gradients(expected, critic)) < 1e-8
