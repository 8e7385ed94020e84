"""What a graph depends on, asked for anew or told by objects alone: both see the same changes."""

import copy
import gc
import weakref
from collections import OrderedDict

import pytest
import torch
from torch import nn

import wgan_fast
from wgan_fast.frozen_function import FrozenFunction
from wgan_fast.ops.registration import EXTENSION_MISSING
from wgan_fast.signature import Signature

pytestmark = pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here")


def module():
    net = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.2), nn.BatchNorm1d(4), nn.Linear(4, 1))
    net.scale = 2.0
    net[3].register_forward_hook(lambda *_: None)
    return net


def nothing(net):
    pass


def numbers(net):
    with torch.no_grad():
        net[0].weight.mul_(2)
        net[2].running_mean.add_(1)


def gradients(net):
    net[0].weight.grad = torch.ones_like(net[0].weight)


def a_tensor_beside(net):
    net.seen = torch.randn(3)


def the_same_number(net):
    net.scale = net.scale


def a_hook_on_a_parameter(net):
    net[0].weight.register_hook(lambda gradient: gradient)


UNSEEN = [nothing, numbers, gradients, a_tensor_beside, the_same_number, a_hook_on_a_parameter]


def a_number(net):
    net.scale = 3.0


def a_number_of_the_same_kind_and_place(net):
    del net.scale
    net.scale = 2.5


def a_flag_more(net):
    net.doubled = False


def a_number_less(net):
    del net.scale


def a_flag_within(net):
    net[2].eval()


def a_layer(net):
    net[1] = nn.ReLU()


def a_layer_more(net):
    net.append(nn.Tanh())


def a_parameter(net):
    net[0].weight = nn.Parameter(net[0].weight.detach().clone())


def a_parameter_less(net):
    net[0].bias = None


def a_buffer(net):
    net[2].running_mean = torch.zeros(4)


def another_type(net):
    net[0].weight.data = net[0].weight.data.double()


def no_gradient(net):
    net[3].bias.requires_grad_(False)


def a_forward_hook(net):
    net[1].register_forward_hook(lambda *_: None)


def a_hook_before(net):
    net[1].register_forward_pre_hook(lambda *_: None)


def hooks_removed_at_once(net):
    net[3]._forward_hooks = OrderedDict()


def another_dictionary_of_parameters(net):
    net[0]._parameters = {name: p.clone() for name, p in net[0]._parameters.items()}


def another_dictionary_of_modules(net):
    net._modules = copy.deepcopy(net._modules)


def another_state(net):
    net[0].__setstate__(copy.deepcopy(net[0].__getstate__()))


def another_dictionary(net):
    net[1].__dict__ = {**net[1].__dict__, "negative_slope": 0.7}


SEEN = [
    hooks_removed_at_once, another_dictionary_of_parameters, another_dictionary_of_modules,
    another_state, another_dictionary,
    a_number, a_number_of_the_same_kind_and_place, a_flag_more, a_number_less, a_flag_within,
    a_layer, a_layer_more, a_parameter, a_parameter_less, a_buffer, another_type, no_gradient,
    a_forward_hook, a_hook_before,
]  # fmt: skip


@pytest.mark.parametrize("change", [*UNSEEN, *SEEN])
def test_modules(change):
    net, x = module(), torch.randn(5, 3)
    signature = Signature([net])
    facts, snapshot = signature.now([x]), signature.snapshot([x])
    assert snapshot.holds(x)
    change(net)
    assert (signature.now([x]) == facts) is (change in UNSEEN)
    assert snapshot.holds(x) is (change in UNSEEN)


OTHERS = {
    "rows": lambda x: (x[:4],),
    "strides": lambda x: (x.t().contiguous().t(),),
    "type": lambda x: (x.double(),),
    "device": lambda x: (x.to("meta"),),
    "count": lambda x: (x, x),
    "none": lambda x: (),
}


@pytest.mark.parametrize("other", OTHERS)
def test_arguments(other):
    net, x = module(), torch.randn(5, 3)
    snapshot = Signature([net]).snapshot([x])
    assert snapshot.holds(torch.randn(5, 3))
    assert not snapshot.holds(*OTHERS[other](x))
    assert snapshot.holds(x.requires_grad_())  # a graph computes past autograd


def test_modes():
    net, x = module(), torch.randn(5, 3)
    snapshot = Signature([net]).snapshot([x])
    with torch.autocast("cpu", torch.bfloat16):
        assert not snapshot.holds(x)
        narrow = Signature([net]).snapshot([x])
    with torch.autocast("cpu", torch.float16):
        assert not narrow.holds(x)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert not snapshot.holds(x)
    finally:
        torch.set_num_threads(threads)
    assert snapshot.holds(x)


def test_only_modules_have_one():
    net, x = module(), torch.randn(5, 3)
    assert Signature([net, lambda z: net(z)]).snapshot([x]) is None


def test_a_value_that_is_gone_is_not_taken_for_another_at_its_place():
    net, x = module(), torch.randn(5, 3)
    for number in range(200):
        net.scale = float(number)
        snapshot = Signature([net]).snapshot([x])
        del net.scale
        net.scale = number + 0.5  # would be put where the first was, were that not held
        assert not snapshot.holds(x)


def test_a_frozen_step_asks_the_modules_once():
    critic = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    real, fake = torch.randn(5, 3), torch.randn(5, 3)
    step = wgan_fast.freeze(critic, real)
    asked = 0
    now = Signature.now

    def counting(self, arguments):
        nonlocal asked
        asked += 1
        return now(self, arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Signature, "now", counting)
        for _ in range(6):
            step(real, fake)
    assert asked == 1


def on_the_module(critic, step):
    critic.step = step


def in_a_list(critic, step):
    critic[0].steps = [step]


def on_a_parameter(critic, step):
    critic[0].weight.step = step


def in_a_hook(critic, step):
    critic[0].register_forward_hook(lambda *_: step and None)


@pytest.mark.parametrize("held", [on_the_module, in_a_list, on_a_parameter, in_a_hook])
@pytest.mark.parametrize("calls", [0, 3])
def test_a_module_that_holds_its_own_step_is_collected(held, calls):
    critic = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    real, fake = torch.randn(2, 5, 3)
    step = wgan_fast.freeze(critic, real)
    held(critic, step)
    for _ in range(calls):
        step.value_and_grad(real, fake)
    gone = [weakref.ref(one) for one in (critic, critic[0], critic[0].weight, step)]
    del critic, step
    gc.collect()
    assert [one() for one in gone] == [None] * 4


def test_ordered_parts_are_asked_for():
    net, x = module(), torch.randn(5, 3)
    net._modules = OrderedDict(net._modules)
    assert Signature([net]).snapshot([x]) is None


def test_a_step_that_runs_eagerly_takes_a_snapshot_for_calls_in_a_row_alone(monkeypatch):
    taken = []
    snapshot = Signature.snapshot
    monkeypatch.setattr(
        Signature, "snapshot", lambda self, given: (taken.append(1), snapshot(self, given))[1]
    )
    net = module()
    function = FrozenFunction(lambda x: [x.sum().item() * x], [net], lambda: ["x"], "auto")
    for _ in range(4):
        for rows in (4, 5):
            function(torch.randn(rows, 3))
    assert not taken
    function(torch.randn(5, 3))
    assert taken
