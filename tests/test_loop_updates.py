"""A loop's step and the optimiser's update in one call: as if they were two, whatever changes."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import SEED
from tests.test_optimizer_step import give_gradients, parameters
from wgan_fast import CriticLoop, loop_updates
from wgan_fast.flat_graph import trace
from wgan_fast.models import MLPCritic, MLPGenerator
from wgan_fast.ops.registration import EXTENSION_MISSING
from wgan_fast.optimizer_step import updates_of
from wgan_fast.side_by_side import SideBySide

pytestmark = [
    pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here"),
    pytest.mark.usefixtures("two_threads"),
]

N_CRITIC, BATCH = 3, 16


@pytest.fixture
def at_once(monkeypatch):
    """The steps that were taken in one call with their update."""
    calls = []
    own = SideBySide.and_step

    def counting(self, *arguments):
        calls.append(self)
        return own(self, *arguments)

    monkeypatch.setattr(SideBySide, "and_step", counting)
    return calls


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=1e-3, betas=(0.5, 0.9), fused=True)


def a_loop(optimizer=adam, dtype=torch.float64, **options):
    networks = MLPGenerator(3, 4, 8, 2).to(dtype), MLPCritic(4, 8, 2).to(dtype)
    return CriticLoop(
        *networks, *(optimizer(network) for network in networks), latent_shape=3,
        n_critic=N_CRITIC, **options,
    )  # fmt: skip


def twins(**options):
    """Two loops that begin alike."""
    one = a_loop(**options, rng=torch.Generator().manual_seed(5))
    other = a_loop(**options, rng=torch.Generator().manual_seed(5))
    for name in ("generator", "critic"):
        state = copy.deepcopy(getattr(one, name).state_dict())
        for loop in (one, other):  # both, so that the tensors' versions are the same as well
            getattr(loop, name).load_state_dict(state)
    return one, other


def in_two_calls(loop, reals):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_updates, "_one_call", lambda *_: None)
        loop(reals)


def same_optimizers(one, other):
    for group, expected in zip(one.param_groups, other.param_groups, strict=True):
        for mine, others in zip(group["params"], expected["params"], strict=True):
            assert one.state[mine].keys() == other.state[others].keys()
            for name, value in one.state[mine].items():
                assert torch.equal(value, other.state[others][name])


def same(one, other):
    for name in ("generator", "critic"):
        mine, others = getattr(one, name).parameters(), getattr(other, name).parameters()
        for parameter, expected in zip(mine, others, strict=True):
            assert torch.equal(parameter, expected)
            assert parameter._version == expected._version
            assert (parameter.grad is None) == (expected.grad is None)
            if parameter.grad is not None:
                assert torch.equal(parameter.grad, expected.grad)
                assert parameter.grad.stride() == expected.grad.stride()
    same_optimizers(one.critic_optimizer, other.critic_optimizer)
    same_optimizers(one.generator_optimizer, other.generator_optimizer)


def draw(dtype=torch.float64):
    return torch.randn(N_CRITIC, BATCH, 4, dtype=dtype)


OPTIMIZERS = {
    "Adam": adam,
    "AdamW": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, maximize=True, fused=True),
    "decay": lambda m: torch.optim.Adam(m.parameters(), weight_decay=0.1, eps=1e-3, fused=True),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_bits(name, dtype, at_once):
    one, other = twins(optimizer=OPTIMIZERS[name], dtype=dtype)
    for iteration in range(4):
        reals = draw(dtype)
        at_once.clear()
        one(reals)
        # An optimiser's first step makes its state, and what the second one takes is looked at.
        assert len(at_once) == [N_CRITIC - 2, N_CRITIC, N_CRITIC + 1][min(iteration, 2)]
        at_once.clear()
        in_two_calls(other, reals)
        assert not at_once
        same(one, other)


def another_rate(loop):
    loop.critic_optimizer.param_groups[0]["lr"] *= 0.5


def other_betas(loop):
    loop.generator_optimizer.param_groups[0]["betas"] = (0.1, 0.5)


def loaded(loop):
    optimizer = loop.critic_optimizer
    state = copy.deepcopy(optimizer.state_dict())
    for of_one in state["state"].values():
        of_one["exp_avg"] += 0.1
    optimizer.load_state_dict(state)


def another_group(loop):
    first = next(loop.critic.parameters())
    group = loop.critic_optimizer.param_groups[0]
    group["params"] = [one for one in group["params"] if one is not first]
    loop.critic_optimizer.add_param_group({"params": [first], "lr": 0.1})


def less(loop):
    loop.critic_optimizer.param_groups[0]["params"].pop()


def frozen(loop):
    next(loop.critic.parameters()).requires_grad_(False)


def replaced(loop):
    layer = next(one for one in loop.critic.modules() if isinstance(one, nn.Linear))
    layer.bias = nn.Parameter(torch.ones_like(layer.bias))
    loop.critic_optimizer.param_groups[0]["params"] = list(loop.critic.parameters())


def another_optimizer(loop):
    loop.critic_optimizer = torch.optim.SGD(loop.critic.parameters(), lr=0.1)


def amsgrad(loop):
    group = loop.critic_optimizer.param_groups[0]
    group["amsgrad"] = True
    for state in loop.critic_optimizer.state.values():
        state["max_exp_avg_sq"] = state["exp_avg_sq"].clone()


def a_rate_in_a_tensor(loop):
    loop.critic_optimizer.param_groups[0]["lr"] = torch.tensor(1e-2)


def in_a_list(loop):
    loop.critic_optimizer.param_groups[0]["betas"] = [0.5, 0.9]


def something_of_the_users(loop):
    loop.critic_optimizer.state["mine"] = 3


def another_class(loop):
    loop.critic_optimizer.__class__ = Other


class Other(torch.optim.Adam):
    """Whose step may be anything."""

    def step(self):
        super().step()
        self.param_groups[0]["params"][0].data.mul_(0.5)


def another_penalty(loop):
    loop.weight = 3.0


CHANGES = [
    another_rate, other_betas, loaded, another_group, less, frozen, replaced, another_optimizer,
    amsgrad, a_rate_in_a_tensor, in_a_list, something_of_the_users, another_class, another_penalty,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_between_iterations_counts(change, at_once):
    one, other = twins()
    for iteration in range(5):
        reals = draw()
        if iteration == 3:
            assert at_once
            change(one)
            change(other)
        one(reals)
        in_two_calls(other, reals)
        same(one, other)


def test_betas_that_change_in_their_list(at_once):
    one, other = twins()
    for loop in (one, other):
        in_a_list(loop)
    for iteration in range(5):
        reals = draw()
        if iteration == 3:
            for loop in (one, other):
                loop.critic_optimizer.param_groups[0]["betas"][0] = 0.1
        one(reals)
        in_two_calls(other, reals)
        same(one, other)


class WithAHead(nn.Module):
    """A critic with a layer that its own loss does not reach."""

    def __init__(self):
        super().__init__()
        self.critic = MLPCritic(4, 8, 2)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.critic(x)


@pytest.mark.parametrize("trained", [True, False])
def test_gradients_of_other_parameters(trained, at_once):
    """Someone trains a head in a loss of its own: its gradient is stepped by, or is gone."""
    torch.manual_seed(SEED)
    loops = []
    for _ in range(2):
        generator, critic = MLPGenerator(3, 4, 8, 2), WithAHead()
        loop = CriticLoop(
            generator, critic, adam(generator), adam(critic), latent_shape=3, n_critic=N_CRITIC,
            rng=torch.Generator().manual_seed(5),
        )  # fmt: skip
        loops.append(loop)
    one, other = loops
    for name in ("generator", "critic"):
        getattr(other, name).load_state_dict(getattr(one, name).state_dict())
    for loop in loops:
        loop.critic.head.requires_grad_(trained)
    for iteration in range(5):
        reals = draw(torch.float32)
        if iteration == 3:
            assert len(at_once) > 4
            for loop in loops:
                for parameter in loop.critic.head.parameters():
                    parameter.grad = torch.ones_like(parameter)
        one(reals)
        in_two_calls(other, reals)
        for mine, others in zip(one.critic.parameters(), other.critic.parameters(), strict=True):
            assert torch.equal(mine, others)
            assert (mine.grad is None) == (others.grad is None)


def test_another_number_of_threads(at_once):
    one, other = twins()
    for threads in (2, 1, 3, 2):
        torch.set_num_threads(threads)
        reals = draw()
        one(reals)
        in_two_calls(other, reals)
        same(one, other)


def test_whoever_watches_the_optimizer_sees_each_step(at_once):
    loop = a_loop()
    loop(draw())
    seen = []
    hook = loop.critic_optimizer.register_step_post_hook(lambda *_: seen.append(len(at_once)))
    at_once.clear()
    loop(draw())
    assert len(seen) == N_CRITIC
    assert not at_once  # the generator's is its second one
    hook.remove()
    loop(draw())
    loop(draw())
    assert len(seen) == N_CRITIC
    assert len(at_once) == 2 * (N_CRITIC + 1) - 1


def test_lazy_penalties_have_two_kinds_of_step(at_once):
    one, other = twins(every=2)
    for _ in range(3):
        reals = draw()
        one(reals)
        in_two_calls(other, reals)
        same(one, other)
    assert at_once


def test_modes_see_every_operator(at_once):
    class Seeing(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.updates = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            self.updates += op is torch.ops.aten._fused_adam_.default
            return op(*args, **(kwargs or {}))

    one, other = twins()
    for _ in range(3):
        reals = draw()
        with Seeing() as seen:
            one(reals)
        assert seen.updates == N_CRITIC + 1
        in_two_calls(other, reals)
        same(one, other)


def test_a_loop_that_is_gone_is_collected(at_once):
    loop = a_loop()
    for _ in range(2):
        loop(draw())
    assert at_once
    seen = [weakref.ref(one) for one in (loop, loop.critic, loop.critic_optimizer)]
    del loop
    at_once.clear()
    gc.collect()
    assert [one() for one in seen] == [None] * 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_step_by_means(dtype):
    """As Adam's own by the means; narrow gradients, whose means take another way, as well."""
    ours = parameters(dtype)
    theirs = copy.deepcopy(ours)
    optimizer, plain = (torch.optim.Adam(p, lr=1e-2, fused=True) for p in (ours, theirs))
    give_gradients(ours, theirs)
    optimizer.step()
    plain.step()
    ((moved, update),) = updates_of(optimizer)
    shapes = [one.shape for one in moved]
    # Results: one that is no gradient, then a gradient for each parameter; the last, negative.
    graph = trace(
        lambda *xs: [xs[0].sum(), *(x.exp().squeeze(0) for x in xs[:-1]), -xs[-1].squeeze(0)], [],
        [torch.randn(1, *shape, dtype=dtype) for shape in shapes],
    )  # fmt: skip
    for _ in range(3):
        given = [torch.randn(2, *shape, dtype=dtype) for shape in shapes]
        means = graph.mean(given, 2, [])
        results = graph.mean_and_step(given, 2, [], update, [1, 2, 3])
        assert all(map(torch.equal, results, means))
        for parameter, mean in zip(theirs, means[1:], strict=True):
            parameter.grad = mean
        plain.step()
        for one, mean, other in zip(ours, means[1:], theirs, strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one.grad, mean)


@pytest.mark.parametrize(("change", "says"), [
    (lambda g: g[:1], "gradients: expected one for each of 3"),
    (lambda g: [*g[:2], g[2][:1]], "expected the shape"),
    (lambda g: [*g[:2], g[2].float()], "gradients: expected Double, got Float"),
])  # fmt: skip
def test_gradients_that_do_not_fit_change_nothing(change, says):
    ours = parameters()
    optimizer = torch.optim.Adam(ours, fused=True)
    give_gradients(ours)
    optimizer.step()
    before = copy.deepcopy([ours, optimizer.state_dict()["state"]])
    ((_, update),) = updates_of(optimizer)
    with pytest.raises(RuntimeError, match=says):
        update.step(change([torch.ones_like(one) for one in ours]))
    assert all(map(torch.equal, ours, before[0]))
    now = optimizer.state_dict()["state"]
    for state, was in zip(now.values(), before[1].values(), strict=True):
        assert all(torch.equal(state[name], was[name]) for name in was)


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("penalty", ["gp", "dragan"])
def test_narrow_networks(penalty, mode, at_once):
    """α and noise are drawn as wide as what is computed of them."""
    loop = a_loop(dtype=torch.bfloat16, penalty=penalty, mode=mode)
    before = copy.deepcopy(list(loop.critic.parameters()))
    for _ in range(3):
        stats = loop(draw(torch.bfloat16))
    assert stats.critic_loss.isfinite()
    after = list(loop.critic.parameters())
    assert all(parameter.isfinite().all() for parameter in after)
    assert not all(map(torch.equal, after, before))
