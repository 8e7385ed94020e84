"""Critics that must not be taken in one batch, and others on which the engine once went wrong."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wgan_fast
from tests.double_backward.critics import Apply
from tests.double_backward.oracle import loss_error, penalty_error
from wgan_fast.double_backward import merged

WIDTH = 6


def mlp():
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 1))


def rows(x):
    return torch.arange(len(x), dtype=x.dtype)[:, None]


# Each sample's score depends on the batch around it, in ways that an op's name does not tell.
SEEING = {
    "batch size": lambda net, x: net(x) / len(x),
    "branch on the batch size": lambda net, x: net(x) * (2.0 if len(x) > 8 else 1.0),
    "row number": lambda net, x: net(x) * (1 + rows(x)),
    "row number, by turns": lambda net, x: net(x) * (1 + rows(x) % 2),
    "only the first rows": lambda net, x: net(torch.where(rows(x) > 2, x, 2 * x)),
    "linspace": lambda net, x: net(x) * torch.linspace(0, 1, len(x), dtype=x.dtype)[:, None],
    "shifted by padding": lambda net, x: net(x + F.pad(x, (0, 0, 1, -1))),
    "NumPy": lambda net, x: net(x - torch.from_numpy(x.detach().numpy().mean(0))),
    "lists": lambda net, x: net(x) * (1 + sum(map(sum, x.tolist()))),
    "a mean": lambda net, x: net(x - x.mean(0)),
    "flipped": lambda net, x: net(x + x.flip(0)),
    "sorted": lambda net, x: net(x.sort(0).values),
    "noise for all": lambda net, x: net(x + torch.randn(1, WIDTH, dtype=x.dtype)),
    "dropped weights": lambda net, x: F.linear(x, F.dropout(net[0].weight)).tanh().sum(1),
}


@pytest.mark.parametrize("backend", ["auto", "explicit"])
@pytest.mark.parametrize("name", SEEING)
def test_samples_that_see_each_other(name, backend):
    critic = Apply(lambda m, x: SEEING[name](m[0], x), mlp()).double()
    assert loss_error(critic, (5, WIDTH), backend) < 1e-10


def by_size(x, seeing):
    return x / len(x) if seeing else x


class Flagged(nn.Module):
    """Sees how large its batch is once a flag of its own, or of the call, says so."""

    def __init__(self):
        super().__init__()
        self.net, self.flag = mlp(), False

    def forward(self, x, flag=False):
        x = self.net(x)
        return by_size(x, self.flag or flag) * (1 / len(x) if self.flag == "factor" else 1.0)


FLAG = {"on": False}


@pytest.mark.parametrize("how", ["attribute", "argument", "partial", "closure", "global"])
def test_a_proof_holds_for_the_flags_it_was_made_under(how):
    net = Flagged().double()
    real, fake = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    alpha = torch.rand(5, dtype=torch.float64)

    def losses(flag, backend):
        net.flag = flag and how == "attribute"
        FLAG["on"] = flag
        options = {"cond_kwargs": {"flag": flag}} if how == "argument" else {}
        critic = {
            "attribute": net,
            "argument": net,
            "partial": functools.partial(net, flag=flag),
            "closure": lambda x: net(x, flag),
            "global": lambda x: net(x, FLAG["on"]),
        }[how]
        penalised = wgan_fast.critic_loss(
            critic, real, fake, alpha=alpha, backend=backend, **options
        )
        lazy = wgan_fast.CriticLoss(critic, penalty="r1", every=2, backend=backend)
        lazy(real, fake, **options)
        return torch.stack([penalised, lazy(real, fake, **options)])

    for flag in (False, True, False):
        torch.testing.assert_close(losses(flag, "auto"), losses(flag, "autograd"))


def test_a_number_that_changes_in_every_step_is_not_worth_a_proof_in_each():
    """A factor that fades something in, as a progressively grown critic has."""
    net, calls = mlp(), []
    net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))

    def step(number, **options):
        calls.clear()
        wgan_fast.critic_loss(
            lambda x, fade: fade * net(x), *torch.randn(2, 5, WIDTH),
            cond_kwargs={"fade": number}, **options,
        )  # fmt: skip
        return list(calls)

    found = [step(number / 20) for number in range(12)]
    assert found[0] == [15, 5, 5]
    assert found[1] == [15, 15, 5, 5]
    assert found[-1] == [5, 5, 5]
    assert sum(step(0.7, chunk_size=3)) >= 15  # never refused for that


@pytest.mark.parametrize("kind", ["dict", "list", "float"])
def test_lazy_steps_see_flags_that_a_module_holds(kind):
    class Holding(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()
            self.held = {"dict": {"on": 0}, "list": [0], "float": 0.0}[kind]

        def forward(self, x):
            on = {"dict": lambda: self.held["on"], "list": lambda: self.held[0]}.get(kind)
            return self.net(x) * (1 / len(x) if (self.held if on is None else on()) else 1.0)

    critic = Holding().double()
    real, fake = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    lazy = wgan_fast.CriticLoss(critic, penalty="r1", every=1000)
    lazy(real, fake)
    for on in (0, 1, 0, 1):
        critic.held = {"dict": {"on": on}, "list": [on], "float": float(on)}[kind]
        torch.testing.assert_close(lazy(real, fake), critic(fake).mean() - critic(real).mean())


class PowerIteration(nn.Module):
    """A spectral norm as it is written by hand: state that is replaced, not written into."""

    def __init__(self, how):
        super().__init__()
        self.how, self.net = how, mlp()
        self.register_buffer("u", torch.randn(8))
        self.register_buffer("v", torch.randn(8))

    def forward(self, x):
        weight = self.net[0].weight
        state = self.v if self.how == "data" else self.u
        new = F.normalize(weight.detach() @ (weight.detach().t() @ state.detach()), dim=0)
        if self.how == "data":
            self.v.data = new
        else:
            self.u = new
        return self.net(x) / (new @ weight).norm()


@pytest.mark.parametrize("how", ["data", "buffer"])
def test_state_that_is_replaced(how):
    critic = PowerIteration(how).double()
    with torch.no_grad():
        critic(torch.randn(2, WIDTH, dtype=torch.float64))
    assert loss_error(critic, (5, WIDTH)) < 1e-10
    # ... and it moved on three times, as in three calls.
    state = critic.v if how == "data" else critic.u
    before = state.detach().clone()
    wgan_fast.critic_loss(critic, *torch.randn(2, 5, WIDTH, dtype=torch.float64))
    weight = critic.net[0].weight.detach()
    for _ in range(3):
        before = F.normalize(weight @ (weight.t() @ before), dim=0)
    torch.testing.assert_close((critic.v if how == "data" else critic.u).detach(), before)


# Right in one batch or refused, but never wrong.
ODD = {
    "split into one": lambda m, x: m[0](x.split(8, 1)[0]),
    "chunk of one": lambda m, x: m[0](x.chunk(1, 1)[0]),
    "unbound": lambda m, x: m[0](x[:, None].unbind(1)[0]),
    "a token": lambda m, x: m[0](
        torch.cat([m[0][0].bias[None, :WIDTH].expand(len(x), -1)[:, None], x[:, None]], 1).sum(1)
    ),
    "a learned bias": lambda m, x: m[0](x + m[0][0].bias[:WIDTH].expand(len(x), -1)),
    "addmm with samples": lambda m, x: torch.addmm(
        x @ m[0][0].weight.t(), x, m[0][0].weight.t()
    ).tanh().sum(1),
    "Fourier": lambda m, x: m[0](torch.fft.rfft(x, n=2 * WIDTH - 1).abs()),
    "Fourier beside": lambda m, x: m[0](x) + torch.fft.rfft(x).real.sum(1, keepdim=True),
    "rounded": lambda m, x: m[0](x.round()),
    "scripted": lambda m, x: m[1](x),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("name", ODD)
def test_odd_critics(name, samples):
    scripted = torch.jit.trace(mlp().double(), torch.randn(2, WIDTH, dtype=torch.float64))
    critic = Apply(ODD[name], mlp(), scripted).double()
    if name != "rounded":  # whose penalty is a constant, in the reference too
        assert penalty_error(critic, (samples, WIDTH), "auto") < 1e-10
    assert loss_error(critic, (samples, WIDTH), "auto") < 1e-10


def test_a_parameter_with_rows_and_one_sample():
    critic = Apply(
        lambda m, x: m[0]((x + m[0][0].weight[:3]).tanh()).reshape(len(x), -1).sum(1), mlp()
    ).double()
    assert loss_error(critic, (1, WIDTH)) < 1e-10


def test_closures_made_in_every_step_are_remembered():
    net = nn.Sequential(nn.Linear(WIDTH, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    calls = []

    def step():
        def critic(x):
            calls.append(len(x))
            return net(x)

        wgan_fast.critic_loss(critic, *torch.randn(2, 5, WIDTH)).backward()

    step()
    calls.clear()
    step()
    assert calls == [5, 5, 5]  # no fourth, on the batch of 15 that BatchNorm refuses


@pytest.mark.parametrize("kind", ["module", "closure", "partial", "method"])
def test_a_proof_is_made_once_for_every_shape(kind):
    net = mlp()
    calls = []
    net.register_forward_hook(lambda module, given, result: calls.append(len(given[0])))

    def step(samples):
        def closure(x):
            return net(x)

        critic = {
            "module": net, "closure": closure, "method": net.forward,
            "partial": functools.partial(lambda module, x: module(x), net),
        }[kind]  # fmt: skip
        if kind == "method":  # which goes around the hooks
            calls.append(3 * samples)
        wgan_fast.critic_loss(critic, *torch.randn(2, samples, WIDTH)).backward()

    step(5)
    step(3)
    calls.clear()
    step(5)
    step(3)
    assert calls == [15, 9]


def test_gradients_may_be_written_into():
    critic = mlp()
    loss = wgan_fast.critic_loss(critic, *torch.randn(2, 5, WIDTH))
    weight = critic[0].weight
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    expected = first.clone()
    first.zero_()
    torch.testing.assert_close(torch.autograd.grad(loss, weight)[0], expected)


def test_differentiating_twice_leaves_no_trace_and_sees_changed_parameters():
    critic = nn.Sequential(nn.Linear(WIDTH, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    loss = wgan_fast.gradient_penalty(critic, *torch.randn(2, 5, WIDTH))
    counted = critic[1].num_batches_tracked.item(), critic[1].running_mean.clone()
    torch.autograd.grad(loss, critic[0].weight, create_graph=True, retain_graph=True)
    assert critic[1].num_batches_tracked.item() == counted[0]
    torch.testing.assert_close(critic[1].running_mean, counted[1])
    with torch.no_grad():
        critic[0].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified after the loss was computed"):
        torch.autograd.grad(loss, critic[0].weight, create_graph=True)


def test_transforms_are_refused():
    net = mlp()

    def penalty(weights):
        return wgan_fast.gradient_penalty(
            lambda x: torch.func.functional_call(net, weights, (x,)), *torch.randn(2, 5, WIDTH)
        )

    with pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.grad(penalty)({name: p.detach() for name, p in net.named_parameters()})


def test_a_batch_beyond_the_cache_is_taken_in_slices(monkeypatch):
    calls = []
    critic = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 1))
    critic.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    real, fake = torch.randn(2, 10, WIDTH)
    alpha = torch.rand(10)
    monkeypatch.setattr(merged, "_FITS_THE_CACHE", 30 * 64 * 4 // 2)  # half of 3 x 10 samples

    def step(**options):
        calls.clear()
        loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, **options)
        return torch.autograd.grad(loss, list(critic.parameters()))

    expected = step(backend="autograd")
    found = []
    for _ in range(3):
        found.append(step())
        found.append(calls.copy())
    assert found[1::2] == [[30, 10, 10], [15, 5, 5, 15], [15, 15]]  # the proofs, once
    for got in found[::2]:
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other)
    step(chunk_size=10)
    assert calls == [30]
    step(objective=lambda real, fake: (fake - real).mean())  # who knows whether it is a mean
    assert calls == [30]


def test_a_large_curved_critic_is_called_three_times_from_the_second_step_on(monkeypatch):
    calls = []
    critic = nn.Sequential(nn.Linear(WIDTH, 64), nn.Tanh(), nn.Linear(64, 1)).double()
    critic.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    real, fake = torch.randn(2, 10, WIDTH, dtype=torch.float64)
    alpha = torch.rand(10)
    monkeypatch.setattr(merged, "_FITS_THE_CACHE", 30 * 64 * 8 - 1)
    found = []
    for backend in ("autograd", "explicit", "explicit"):
        calls.clear()
        loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend=backend)
        found.append(torch.autograd.grad(loss, list(critic.parameters())))
    assert calls == [10, 10, 10]
    for got in found[1:]:
        for one, other in zip(got, found[0], strict=True):
            torch.testing.assert_close(one, other)


def test_backward_hooks_are_seen_through_a_closure():
    critic = mlp()
    critic[0].register_full_backward_hook(lambda module, given, taken: (3 * given[0],))
    real, fake = torch.randn(2, 5, WIDTH)
    alpha = torch.rand(5)
    by = [
        wgan_fast.gradient_penalty(lambda x: critic(x), real, fake, alpha=alpha, backend=backend)
        for backend in ("auto", "autograd")
    ]
    torch.testing.assert_close(*by)


def test_gradients_of_a_weights_summands_lie_apart():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = (nn.Parameter(torch.randn(s)) for s in ((1, WIDTH), WIDTH))

        def forward(self, x):
            return F.linear(x, self.one + self.other.view(1, -1)).tanh()

    critic = Sum()
    wgan_fast.critic_loss(critic, *torch.randn(2, 5, WIDTH), backend="explicit").backward()
    before = critic.other.grad.clone()
    critic.one.grad.zero_()
    assert torch.equal(critic.other.grad, before)
    assert before.any()
