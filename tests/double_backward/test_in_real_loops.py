"""The explicit engine where training code puts a loss: accumulation, hooks, DDP, copies."""

import copy
import gc
import pickle

import pytest
import torch
from torch import nn

import wgan_fast
from tests.double_backward.critics import CRITICS, Apply
from tests.double_backward.oracle import error, gradients, samples
from tests.harness import run_python
from wgan_fast import reference
from wgan_fast.double_backward.errors import Unsupported

SHAPE = (6, 5)


def mlp() -> nn.Module:
    hidden = (nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    return nn.Sequential(nn.Linear(5, 8), nn.SiLU(), *hidden).double()


@pytest.fixture
def critic():
    return mlp()


@pytest.fixture
def data():
    return samples(SHAPE)


def expected(critic, data, weight=10.0):
    real, fake, alpha = data
    return reference.critic_loss(critic, real, fake, alpha, weight)


def ours(critic, data, backend="explicit", **options):
    real, fake, alpha = data
    return wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend=backend, **options)


def test_any_incoming_gradient(critic, data):
    theirs = gradients(expected(critic, data) * -2.5, critic)
    assert error(gradients(ours(critic, data) * -2.5, critic), theirs) < 1e-10
    loss = ours(critic, data)
    incoming = torch.tensor(-2.5, dtype=torch.float64)
    assert error(torch.autograd.grad(loss, list(critic.parameters()), incoming), theirs) < 1e-10


def test_accumulation_and_a_kept_graph(critic, data):
    theirs = gradients(expected(critic, data), critic)
    loss = ours(critic, data)
    loss.backward(retain_graph=True)
    loss.backward()
    ours(critic, data).backward()
    got = [p.grad for p in critic.parameters()]
    assert error(got, [3 * g for g in theirs]) < 1e-10


def test_a_second_backward_asks_for_a_kept_graph(critic, data):
    loss = ours(critic, data)
    loss.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        loss.backward()


def test_frozen_parameters(critic, data):
    critic[0].weight.requires_grad_(False)
    loss = ours(critic, data)
    loss.backward()
    assert critic[0].weight.grad is None
    reference_loss = expected(critic, data)
    free = [p for p in critic.parameters() if p.requires_grad]
    theirs = torch.autograd.grad(reference_loss, free)
    assert error([p.grad for p in free], theirs) < 1e-10
    for parameter in critic.parameters():
        parameter.requires_grad_(False)
    loss = ours(critic, data)
    assert not loss.requires_grad
    assert abs(loss.item() - reference_loss.item()) < 1e-10


def test_hooks_on_parameters_and_modules(critic, data):
    theirs = gradients(expected(critic, data), critic)
    seen = []
    handle = critic[2].weight.register_hook(lambda g: g * 3)
    critic[0].register_forward_hook(lambda *_: seen.append(1))
    loss = ours(critic, data)
    assert seen
    got = torch.autograd.grad(loss, list(critic.parameters()))
    handle.remove()
    assert error([got[2] / 3], [theirs[2]]) < 1e-10
    assert error(got[:2], theirs[:2]) < 1e-10

    called = []
    critic[2].register_full_backward_hook(lambda *_: called.append(1))
    assert error(gradients(ours(critic, data, "auto"), critic), theirs) < 1e-10
    assert called
    with pytest.raises(Unsupported, match="backward hooks"):
        ours(critic, data)


def test_value_alone_under_no_grad(critic, data):
    value = expected(critic, data).item()
    for backend in ("auto", "explicit", "autograd"):
        with torch.no_grad():
            loss = ours(critic, data, backend)
        assert not loss.requires_grad
        assert loss.item() == pytest.approx(value, rel=1e-10)


def test_grad_scaler():
    critic = mlp().float()
    optimizer = torch.optim.SGD(critic.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    real, fake = torch.randn(2, *SHAPE)
    alpha = torch.rand(SHAPE[0])
    loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend="explicit")
    theirs = gradients(reference.critic_loss(critic, real, fake, alpha), critic)
    before = [p.detach().clone() for p in critic.parameters()]
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    stepped = [(b - p.detach()) / 0.1 for b, p in zip(before, critic.parameters(), strict=True)]
    assert error(stepped, theirs) < 1e-4


@pytest.mark.parametrize("smooth", [True, False])
def test_differentiated_twice(smooth, data):
    activation = nn.Tanh() if smooth else nn.ReLU()
    critic = nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 1)).double()
    parameters = list(critic.parameters())

    def second(loss):
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        total = sum(g.square().sum() for g in first)
        return torch.autograd.grad(total, parameters, materialize_grads=True)

    theirs = second(expected(critic, data))
    assert error(second(ours(critic, data, "auto")), theirs) < 1e-10
    with pytest.raises(RuntimeError, match=r'backend="explicit" gives first derivatives only'):
        second(ours(critic, data))


def test_differentiated_twice_with_dropout(data):
    """The same masks in the derivative's second computation as in the first."""
    critic = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1)).double()
    real, fake, alpha = data
    loss = wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha)
    plain = torch.autograd.grad(loss, critic[0].weight, retain_graph=True)
    torch.randn(7)  # the stream moves on
    again = torch.autograd.grad(loss, critic[0].weight, create_graph=True)
    assert error(again, plain) < 1e-10


def test_what_explicit_refuses(critic, data):
    real, fake, _ = data
    with pytest.raises(Unsupported, match="detach=False"):
        wgan_fast.gradient_penalty(
            critic, real, fake.clone().requires_grad_(), detach=False, backend="explicit"
        )
    with pytest.raises(Unsupported, match="reduction"):
        wgan_fast.gradient_penalty(critic, real, fake, reduction="none", backend="explicit")


def test_compiled_critic_is_unwrapped(critic, data):
    compiled = torch.compile(critic)
    theirs = gradients(expected(critic, data), critic)
    assert error(gradients(ours(compiled, data), critic), theirs) < 1e-10


def test_closures_and_other_callables(critic, data):
    theirs = gradients(expected(critic, data), critic)
    for form in (lambda x: critic(x), critic.forward, Apply(lambda m, x: m[0](x), critic)):
        assert error(gradients(ours(form, data), critic), theirs) < 1e-10


def test_a_weight_that_is_not_a_leaf(data):
    """A hypernetwork: the critic's weight comes out of a graph of its own."""
    source = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)

    def value(compute):
        weight = source @ source.t()
        return compute(lambda x: (x @ weight).tanh().sum(1))

    mine = torch.autograd.grad(value(lambda critic: ours(critic, data)), source)
    other = torch.autograd.grad(value(lambda critic: expected(critic, data)), source)
    assert error(mine, other) < 1e-10


def test_training_is_the_same_as_with_autograd():
    """Fifty Adam steps in float64 from one seed: the same parameters to 1e-8."""
    trained = {}
    for backend in ("auto", "explicit", "autograd"):
        torch.manual_seed(5)
        critic = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.InstanceNorm2d(4, affine=True),
            nn.Conv2d(4, 4, 4), nn.SiLU(), nn.Flatten(), nn.Linear(4, 1),
        ).double()  # fmt: skip
        optimizer = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.0, 0.9))
        for _ in range(50):
            real, fake = torch.randn(2, 8, 1, 8, 8, dtype=torch.float64)
            optimizer.zero_grad()
            wgan_fast.critic_loss(critic, real, fake, backend=backend).backward()
            optimizer.step()
        trained[backend] = [p.detach() for p in critic.parameters()]
    assert error(trained["explicit"], trained["autograd"]) < 1e-8
    assert error(trained["auto"], trained["autograd"]) < 1e-8


def test_critic_loss_module(critic, data):
    loss = wgan_fast.CriticLoss(critic, weight=3.0, backend="explicit")
    real, fake, alpha = data
    theirs = gradients(expected(critic, data, 3.0), critic)
    for module in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        got = torch.autograd.grad(module(real, fake, alpha), list(module.parameters()))
        assert error(got, theirs) < 1e-10
    assert "weight=3.0" in repr(loss)


DDP = """
import sys, torch, torch.distributed as dist, torch.multiprocessing as mp
from torch import nn
import wgan_fast
from wgan_fast import reference

def critic():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.SiLU(), nn.Linear(8, 1)).double()

def worker(rank, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    torch.manual_seed(1)
    real, fake = torch.randn(2, 8, 5, dtype=torch.float64)
    alpha = torch.rand(8, dtype=torch.float64)
    loss = nn.parallel.DistributedDataParallel(wgan_fast.CriticLoss(critic(), backend="explicit"))
    part = slice(4 * rank, 4 * rank + 4)
    loss(real[part], fake[part], alpha[part]).backward()
    alone = critic()
    expected = reference.critic_loss(alone, real, fake, alpha)
    for p, g in zip(loss.parameters(), torch.autograd.grad(expected, list(alone.parameters()))):
        assert torch.allclose(p.grad, g, rtol=1e-10, atol=1e-12), (p.grad, g)
    dist.destroy_process_group()

if __name__ == "__main__":
    mp.start_processes(worker, args=(sys.argv[1],), nprocs=2, start_method="fork")
    print("equal")
"""


def test_two_processes_equal_one(tmp_path):
    assert "equal" in run_python(DDP, str(tmp_path / "store"))


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 6, 100])
def test_chunks_give_the_same(critic, data, chunk_size):
    real, fake, alpha = data
    whole, stats = ours(critic, data, return_stats=True, drift=0.1)
    cut, cut_stats = ours(critic, data, return_stats=True, drift=0.1, chunk_size=chunk_size)
    assert error(gradients(cut, critic), gradients(whole, critic)) < 1e-12
    for one, other in zip(stats, cut_stats, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-12)
    penalty, seen = wgan_fast.gradient_penalty(
        critic, real, fake, alpha=alpha, chunk_size=chunk_size, return_stats=True
    )
    assert seen.gradient_norms.shape == (6,)
    theirs = reference.gradient_penalty(critic, real, fake, alpha)
    assert error(gradients(penalty, critic), gradients(theirs, critic)) < 1e-10


def test_chunks_of_samples_that_see_each_other_raise(data):
    critic = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double()
    before = critic[1].running_mean.clone()
    for function in (wgan_fast.critic_loss, wgan_fast.gradient_penalty):
        with pytest.raises(ValueError, match=r"chunk_size: .*native_batch_norm"):
            function(critic, *data[:2], chunk_size=2)
    assert torch.equal(critic[1].running_mean, before)
    for bad, kind in ((0, ValueError), (2.0, TypeError)):
        with pytest.raises(kind, match="chunk_size: expected"):
            wgan_fast.critic_loss(critic, *data[:2], chunk_size=bad)
    with pytest.raises(ValueError, match=r'chunk_size: backend="autograd"'):
        wgan_fast.critic_loss(critic, *data[:2], chunk_size=2, backend="autograd")


@pytest.mark.parametrize("loss", [wgan_fast.critic_loss, wgan_fast.gradient_penalty])
@pytest.mark.parametrize(
    "name", ["one number each", "residual in place", "LSTM", "layer LayerNorm", "layer BatchNorm"]
)
def test_nothing_outlives_a_step(loss, name):
    """Not even until the next garbage collection, which sees no cycle through a view's base."""
    make, shape = CRITICS[name]
    critic = make()

    def step():
        loss(critic, *torch.randn(2, *shape), backend="explicit").backward()

    def tensors():
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    step()
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        for _ in range(3):
            step()
        assert tensors() == before
    finally:
        gc.enable()
