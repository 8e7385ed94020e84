"""The way around an optimiser's Python: the same update, and the optimiser's own if watched."""

import copy
import types
import warnings

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_fast import optimizer_step

DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def parameters(dtype=torch.float64, count=3):
    return [nn.Parameter(torch.randn(4, 3 + i, dtype=dtype)) for i in range(count)]


def give_gradients(*lists):
    for twins in zip(*lists, strict=True):
        gradient = torch.randn_like(twins[0])
        for parameter in twins:
            parameter.grad = gradient.clone()


@pytest.fixture
def called(monkeypatch):
    """How often an optimiser's own step is called."""
    calls, own = [], torch.optim.Adam.step  # AdamW's as well

    def counting(self, *arguments):
        calls.append(self)
        return own(self, *arguments)

    counting.hooked = True  # or every class of optimisers would wrap it once more, for good
    monkeypatch.setattr(torch.optim.Adam, "step", counting)
    return calls


OPTIMIZERS = {
    "betas": lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.0, 0.9), fused=True),
    "decay": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1, eps=1e-3, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, maximize=True, fused=True),
    "groups": lambda p: torch.optim.Adam(
        [
            {"params": p[:1], "lr": 0.5, "decoupled_weight_decay": True, "weight_decay": 0.2},
            {"params": p[1:], "betas": (0.5, 0.6)},
        ],
        lr=1e-2,
        fused=True,
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_same_update(make, dtype, called):
    ours = parameters(dtype)
    theirs = copy.deepcopy(ours)
    optimizer, plain = make(ours), make(theirs)
    for step in range(6):
        give_gradients(ours, theirs)
        if step == 3:  # as a schedule that is written by hand does
            for group in (*optimizer.param_groups, *plain.param_groups):
                group["lr"] *= 0.5
        if step == 4:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        if step == 5:
            ours[0].grad = theirs[0].grad = None
        called.clear()
        optimizer_step.take(optimizer)
        assert len(called) == (step == 0)
        plain.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
    for one, other in zip(ours, theirs, strict=True):
        for name, value in optimizer.state[one].items():
            assert torch.equal(value, plain.state[other][name])


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shapes", [[(130, 127), (127,), (257, 130), (3,), (0, 5), (1,)], [(600, 500), (7,)], [(9, 9)]],
    ids=["shared out", "large", "alone"],
)  # fmt: skip
def test_whole_parameters_for_each_thread(shapes, dtype, called):
    ours = [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]
    theirs = copy.deepcopy(ours)
    optimizer, plain = (torch.optim.Adam(p, lr=1e-2, fused=True) for p in (ours, theirs))
    for _ in range(3):
        give_gradients(ours, theirs)
        optimizer_step.take(optimizer)
        plain.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
            assert one._version == other._version
            for name, value in optimizer.state[one].items():
                assert torch.equal(value, plain.state[other][name])
    assert len(called) == 4


def test_modes_see_every_operator():
    ours = parameters()
    optimizer = torch.optim.Adam(ours, fused=True)
    give_gradients(ours)
    optimizer.step()
    seen = []

    class Seeing(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            seen.append(op)
            return op(*args, **(kwargs or {}))

    with Seeing():
        optimizer_step.take(optimizer)
    aten = torch.ops.aten
    assert seen == [aten.add_.Scalar] * 3 + [aten._fused_adam_.default]
    assert all(optimizer.state[one]["step"] == 2 for one in ours)


def watched_by_a_hook(optimizer):
    optimizer.register_step_post_hook(lambda *_: None)


def replaced(optimizer):
    optimizer.step = optimizer.step


def replaced_and_scheduled(optimizer):
    optimizer.step = types.MethodType(lambda self: type(self).step(self), optimizer)
    torch.optim.lr_scheduler.ConstantLR(optimizer)


@pytest.mark.parametrize("watch", [watched_by_a_hook, replaced, replaced_and_scheduled])
def test_whoever_watches_sees_the_step(watch, called):
    ours = parameters()
    optimizer = torch.optim.Adam(ours, fused=True)
    watch(optimizer)
    for _ in range(3):
        give_gradients(ours)
        optimizer_step.take(optimizer)
    assert len(called) == 3


def test_hooks_of_all_optimisers_and_profilers(called):
    ours = parameters()
    optimizer = torch.optim.Adam(ours, fused=True)
    give_gradients(ours)
    optimizer.step()
    called.clear()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        optimizer_step.take(optimizer)
    assert len(called) == 1
    handle = register_optimizer_step_pre_hook(lambda *_: None)
    optimizer_step.take(optimizer)
    handle.remove()
    assert len(called) == 2
    optimizer_step.take(optimizer)
    assert len(called) == 2


class Own(torch.optim.Adam):
    """Whose step may be anything."""


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.Adam(p),
    lambda p: torch.optim.Adam(p, fused=True, amsgrad=True),
    lambda p: torch.optim.Adam(p, fused=True, lr=torch.tensor(1e-3)),
    lambda p: Own(p, fused=True),
    lambda p: torch.optim.Adam([*p, *parameters(torch.float32)], fused=True),
])  # fmt: skip
def test_what_takes_more_than_one_operator(make, called):
    ours = parameters()
    optimizer = make(ours)
    for _ in range(3):
        for group in optimizer.param_groups:
            give_gradients(group["params"])
        optimizer_step.take(optimizer)
    assert len(called) == 3


@pytest.mark.parametrize("loaded", [False, True])
def test_a_schedule_sees_the_first_step_and_does_not_warn(loaded, called):
    ours = parameters()
    theirs = copy.deepcopy(ours)
    optimizer, plain = (torch.optim.Adam(p, lr=0.1, fused=True) for p in (ours, theirs))
    if loaded:  # and is made before the first step that a schedule could have seen
        give_gradients(ours, theirs)
        plain.step()
        optimizer.load_state_dict(copy.deepcopy(plain.state_dict()))
        for one, other in zip(ours, theirs, strict=True):
            one.data.copy_(other)
    schedules = [torch.optim.lr_scheduler.ExponentialLR(o, 0.5) for o in (optimizer, plain)]
    called.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            give_gradients(ours, theirs)
            optimizer_step.take(optimizer)
            plain.step()
            for schedule in schedules:
                schedule.step()
            assert all(map(torch.equal, ours, theirs))
    assert [one is optimizer for one in called].count(True) == 1
    assert optimizer.param_groups[0]["lr"] == plain.param_groups[0]["lr"] == 0.1 / 16
