"""torch.nn's own modules are compared as wholes: right, and only as long as they are the same."""

import threading

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import wgan_fast
from tests.double_backward.oracle import loss_error, penalty_error
from wgan_fast.double_backward import replays, way

SHAPE = (6, 3)


@pytest.fixture
def watched(monkeypatch):
    """The ops that have been looked at one by one; calls are replayed from the second on."""
    seen = []
    look = way._Watch.__torch_dispatch__

    def looking(self, op, types, args=(), kwargs=None):
        seen.append(op)
        return look(self, op, types, args, kwargs)

    monkeypatch.setattr(replays, "CALLS_BEFORE", 1)
    monkeypatch.setattr(way._Watch, "__torch_dispatch__", looking)
    return seen


def layers():
    return nn.Sequential(
        nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Sequential(nn.Linear(8, 8), nn.ELU()),
        nn.Linear(8, 1),
    ).double()  # fmt: skip


class Wrapped(nn.Module):
    """As most critics are written."""

    def __init__(self):
        super().__init__()
        self.main = layers()
        self.scale = nn.Parameter(torch.rand(()))

    def forward(self, x):
        return self.main(x) * self.scale


class Twice(nn.Module):
    """One module, called several times, also within another."""

    def __init__(self):
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.block = nn.Sequential(self.shared, nn.Tanh())

    def forward(self, x):
        h = self.first(x)
        return self.last(self.block(self.shared(h)) + self.shared(h.exp()) + self.block(h))


def is_own(critic):
    """No module keeps anything of having been watched."""
    return all("_compiled_call_impl" not in vars(module) for module in critic.modules())


@pytest.mark.parametrize(
    ("critic", "ops"), [(layers, 0), (Wrapped, 1), (Twice, 3)], ids=["alone", "wrapped", "twice"]
)
@pytest.mark.parametrize("error_of", [loss_error, penalty_error])
def test_only_ops_between_modules_are_looked_at(critic, ops, error_of, watched):
    critic = critic().double()
    for calls in range(4):
        assert error_of(critic, SHAPE) < 1e-10
        assert len(watched) == ops * (calls + 1)
    assert is_own(critic)


def assert_as_autograd(loss, critic):
    """A loss's gradients in a module's parameters, by either backend."""
    data, alpha = torch.randn(2, *SHAPE, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    trained = [parameter for parameter in critic.parameters() if parameter.requires_grad]
    ours, theirs = (
        torch.autograd.grad(loss(*data, alpha, backend), trained)
        for backend in ("auto", "autograd")
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_function_that_calls_a_module(watched):
    critic = layers()

    def loss(real, fake, alpha, backend):
        return wgan_fast.critic_loss(lambda x: critic(x), real, fake, alpha=alpha, backend=backend)

    for _ in range(4):
        assert_as_autograd(loss, critic)
    assert not watched


class Packed(nn.Module):
    """Two samples to a score."""

    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x):
        return self.main(x.view(-1, 6))


def test_packs(watched):
    critic = Packed().double()

    def loss(real, fake, alpha, backend):
        return wgan_fast.critic_loss(critic, real, fake, alpha=alpha[::2], pac=2, backend=backend)

    for _ in range(4):
        assert_as_autograd(loss, critic)
    # The ops that put samples into packs, and take them out again.
    assert {str(op) for op in watched} == {"aten.view.default", "aten.flatten.using_ints"}


def test_a_parameter_that_is_frozen(watched):
    critic = Wrapped().double()

    def loss(real, fake, alpha, backend):
        return wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend=backend)

    for requires_grad in (True, True, True, False, False, True):
        critic.main[0].weight.requires_grad_(requires_grad)
        assert_as_autograd(loss, critic)


def patched(module, _):
    """Another call in an instance's place."""
    module.forward = lambda x: 2 * type(module).forward(module, x)


def parametrized(module, _):
    nn.utils.parametrizations.weight_norm(module)


def of_its_class(module, monkeypatch):
    forward = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: 2 * forward(self, x))


CHANGES = {
    "an attribute": lambda c, _: setattr(c[1], "negative_slope", 0.7),
    "a module": lambda c, _: c.__setitem__(1, nn.Tanh()),
    "a module within": lambda c, _: c[2].__setitem__(1, nn.Tanh()),
    "two modules": lambda c, _: c._modules.update({"1": c[2][1], "2": c[1]}),
    "one more": lambda c, _: c.append(nn.Tanh()),
    "one less": lambda c, _: c.__delitem__(1),
    "no bias": lambda c, _: setattr(c[0], "bias", None),
    "a parameter": lambda c, _: setattr(c[0], "weight", nn.Parameter(torch.randn(8, 3).double())),
    "other memory": lambda c, _: setattr(c[0].weight, "data", torch.randn(8, 3).double()),
    "an instance's call": lambda c, monkeypatch: patched(c[0], monkeypatch),
    "a class's call": lambda c, monkeypatch: of_its_class(c[0], monkeypatch),
    "a weight that is computed": lambda c, monkeypatch: parametrized(c[0], monkeypatch),
    "a hook": lambda c, _: c[2][0].register_forward_hook(lambda *given: given[-1] + 1),
    "a hook before": lambda c, _: c[2].register_forward_pre_hook(lambda _, given: given[0] + 1),
    "a class": lambda c, _: setattr(c[1], "__class__", nn.Sigmoid),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "wrapped"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_module_that_changes(change, wrapped, watched, monkeypatch):
    critic = Wrapped().double() if wrapped else layers()
    for _ in range(3):
        assert loss_error(critic, SHAPE) < 1e-10
    CHANGES[change](critic.main if wrapped else critic, monkeypatch)
    for _ in range(3):
        assert loss_error(critic, SHAPE) < 1e-10
        assert is_own(critic)


def test_a_list_that_is_written_into(watched):
    """A convolution has its padding in one, by which other modes than zeros pad."""
    convolution = nn.Conv1d(2, 3, 3, padding="same", padding_mode="circular")
    critic = nn.Sequential(convolution, nn.Flatten(), nn.Linear(24, 1)).double()
    for _ in range(3):
        assert loss_error(critic, (6, 2, 8)) < 1e-10
    assert not watched
    convolution._reversed_padding_repeated_twice[:] = [2, 0]
    assert loss_error(critic, (6, 2, 8)) < 1e-10
    assert watched


def test_dropout_that_is_turned_off(watched):
    critic = nn.Sequential(nn.Linear(3, 8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 1)).double()
    for _ in range(3):
        wgan_fast.gradient_penalty(critic, *torch.randn(2, *SHAPE, dtype=torch.float64)).backward()
    assert not watched
    critic[1].eval()
    for _ in range(3):
        assert penalty_error(critic, SHAPE) < 1e-10


class Doubling(TorchFunctionMode):
    """Whoever calls ``linear`` gets twice of it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        return 2 * result if func is nn.functional.linear else result


class InMode(Wrapped):
    """A critic that calls its module in one mode or another."""

    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, x):
        if "double" in self.modes:
            with Doubling():
                return super().forward(x)
        if "no_grad" in self.modes:
            with torch.no_grad():
                hidden = self.main(x)
            return (hidden + x.sum(1, keepdim=True)) * self.scale
        return super().forward(x)


@pytest.mark.parametrize("mode", ["double", "no_grad"])
def test_another_mode(mode, watched):
    critic = InMode().double()
    for _ in range(3):
        assert loss_error(critic, SHAPE) < 1e-10
    critic.modes.append(mode)
    for _ in range(3):
        assert loss_error(critic, SHAPE) < 1e-10


def test_autocast(watched):
    critic = Wrapped().float()
    data = torch.randn(2, *SHAPE)
    alpha = torch.rand(6)

    def gradients(backend):
        loss = wgan_fast.critic_loss(critic, *data, alpha=alpha, backend=backend)
        return torch.autograd.grad(loss, list(critic.parameters()))

    for enabled in (False, False, True, True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            pairs = list(zip(gradients("auto"), gradients("autograd"), strict=True))
        tolerance = 0.1 if enabled else 1e-4
        scale = max(b.abs().max() for _, b in pairs)
        assert all((a - b).abs().max() <= tolerance * scale for a, b in pairs)
        apart = max((a - b).abs().max() / scale for a, b in pairs)
        assert enabled or apart < 1e-4


class InAThread(Wrapped):
    """Another thread calls its module meanwhile, on numbers of its own."""

    def __init__(self):
        super().__init__()
        self.found = []

    def forward(self, x):
        numbers = torch.ones(2, 3, dtype=torch.float64)
        thread = threading.Thread(target=lambda: self.found.append(self.main(numbers).detach()))
        thread.start()
        thread.join()
        return super().forward(x)


def test_other_threads_get_their_own_numbers(watched):
    critic = InAThread().double()
    for _ in range(5):
        critic.found.clear()
        assert loss_error(critic, SHAPE, backend="auto") < 1e-10
        expected = critic.main(torch.ones(2, 3, dtype=torch.float64))
        assert all(torch.equal(found, expected) for found in critic.found)


class Failing(Wrapped):
    """It may fail after its module was called."""

    def __init__(self):
        super().__init__()
        self.fails = False

    def forward(self, x):
        scores = super().forward(x)
        if self.fails:
            raise ZeroDivisionError
        return scores


def test_a_critic_that_fails_gets_its_modules_back(watched):
    critic = Failing().double()
    for _ in range(3):
        assert loss_error(critic, SHAPE) < 1e-10
    critic.fails = True
    with pytest.raises(ZeroDivisionError):
        loss_error(critic, SHAPE)
    assert is_own(critic)
    critic.fails = False
    assert loss_error(critic, SHAPE) < 1e-10
