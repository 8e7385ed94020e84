"""``wgan_fast.optim.RMSprop`` against ``torch.optim.RMSprop`` followed by ``clamp_``."""

import copy
import io

import pytest
import torch
from torch import nn

from tests.harness import DTYPES, ROUNDING
from wgan_fast import CriticLoop, ops
from wgan_fast.models import MLPCritic, MLPGenerator
from wgan_fast.optim import RMSprop

SHAPES = ((3, 5), (1,), (0,), (), (8, 3, 4, 4), (1001,))
OPTIONS = (
    {},
    {"centered": True},
    {"momentum": 0.9},
    {"weight_decay": 0.1, "maximize": True},
    {"centered": True, "momentum": 0.5, "weight_decay": 0.01, "alpha": 0.9, "eps": 1e-4},
)


def twins(dtype=torch.float64, shapes=SHAPES):
    """Two lists of the same parameters."""
    drawn = [(torch.randn(shape, dtype=torch.float64) * 0.1).to(dtype) for shape in shapes]
    return [[nn.Parameter(tensor.clone()) for tensor in drawn] for _ in range(2)]


def set_gradients(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()


def clamp(parameters, clip_value):
    with torch.no_grad():
        for parameter in parameters:
            parameter.clamp_(-clip_value, clip_value)


def assert_same(ours, theirs, tolerance=1e-12):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def torch_rmsprop(parameters, lr=1e-2, **options):
    return torch.optim.RMSprop(parameters, lr=lr, foreach=False, **options)


@pytest.mark.parametrize("clip_value", [None, 0.08])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_many_steps(options, clip_value):
    ours, theirs = twins()
    fast = RMSprop(ours, lr=1e-2, clip_value=clip_value, **options)
    textbook = torch_rmsprop(theirs, **options)
    for _ in range(60):
        set_gradients(ours, theirs)
        fast.step()
        textbook.step()
        if clip_value:
            clamp(theirs, clip_value)
    assert_same(ours, theirs)
    for one, other in zip(ours, theirs, strict=True):
        kept, wanted = fast.state[one], textbook.state[other]
        assert list(kept) == list(wanted)
        assert_same(kept.values(), wanted.values())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float64], ids=str)
def test_every_dtype(dtype, options):
    """A step of a short type is rounded once; so is each of the state's numbers."""
    ours, wide = twins(dtype)
    wide = [nn.Parameter(parameter.detach().double()) for parameter in wide]
    fast = RMSprop(ours, lr=1e-2, clip_value=0.08, **options)
    exact = torch_rmsprop(wide, **options)
    for _ in range(2):
        for one, other in zip(ours, wide, strict=True):
            one.grad = torch.randn_like(one)
            one.grad += one.grad.sign() / 4  # rounding of v must not decide
            other.grad = one.grad.double()
        fast.step()
        exact.step()
        clamp(wide, torch.tensor(0.08, dtype=dtype).item())
    # Two roundings of θ, two of v and so one of the step, which is up to 0.15.
    for one, other in zip(ours, wide, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=2 * ROUNDING[dtype])


def test_groups_have_values_of_their_own():
    ours, theirs = twins()
    bounds = [0.05, None, 0.2]

    def groups(parameters, with_bounds):
        made = [
            {"params": parameters[:2], "lr": 1e-3, "weight_decay": 0.1},
            {"params": parameters[2:4], "lr": 3e-2, "momentum": 0.9},
            {"params": parameters[4:]},
        ]
        if with_bounds:
            for group, bound in zip(made, bounds, strict=True):
                group["clip_value"] = bound
        return made

    fast, textbook = RMSprop(groups(ours, True)), torch_rmsprop(groups(theirs, False))
    for _ in range(5):
        set_gradients(ours, theirs)
        fast.step()
        textbook.step()
        for group, bound in zip(textbook.param_groups, bounds, strict=True):
            if bound is not None:
                clamp(group["params"], bound)
    assert_same(ours, theirs)


def test_parameters_without_gradients_are_clipped_and_nothing_else():
    ours, theirs = twins()
    fast, textbook = RMSprop(ours, clip_value=0.05), torch_rmsprop(theirs)
    set_gradients(ours, theirs)
    ours[0].grad = theirs[0].grad = None
    ours[4].grad = theirs[4].grad = None
    before = ours[0].detach().clone()
    fast.step()
    textbook.step()
    clamp(theirs, 0.05)
    assert_same(ours, theirs)
    assert not torch.equal(ours[0], before)
    assert not fast.state[ours[0]]

    free = RMSprop([ours[0]])
    before = ours[0].detach().clone()
    free.step()
    assert torch.equal(ours[0], before)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("direction", ["to torch", "from torch"])
def test_states_of_either_optimiser_are_the_others(direction, options):
    ours, theirs = twins()
    fast, textbook = RMSprop(ours, clip_value=0.1, **options), torch_rmsprop(theirs, **options)

    def step():
        set_gradients(ours, theirs)
        fast.step()
        textbook.step()
        clamp(theirs, 0.1)

    step()
    for _ in range(2):
        giver, taker = (fast, textbook) if direction == "to torch" else (textbook, fast)
        file = io.BytesIO()
        torch.save(giver.state_dict(), file)
        file.seek(0)
        fresh, which = (ours, RMSprop) if taker is fast else (theirs, torch.optim.RMSprop)
        taker = which(fresh, lr=7.0, **({"clip_value": 0.1} if taker is fast else {}))
        taker.load_state_dict(torch.load(file, weights_only=True))
        fast, textbook = (taker, textbook) if taker.__class__ is RMSprop else (fast, taker)
        step()
    assert_same(ours, theirs)
    assert fast.param_groups[0]["lr"] == 1e-2
    assert fast.param_groups[0]["clip_value"] == 0.1
    assert {state["step"].item() for state in fast.state.values()} == {3.0}


def test_a_saved_bound_is_loaded():
    ours, others = twins()
    loaded = RMSprop(others, clip_value=0.3)
    loaded.load_state_dict(RMSprop(ours, clip_value=0.2).state_dict())
    assert loaded.param_groups[0]["clip_value"] == 0.2


def test_a_copy_goes_on_by_itself():
    ours, theirs = twins()
    fast = RMSprop(ours, clip_value=0.1, momentum=0.9)
    textbook = torch_rmsprop(theirs, momentum=0.9)
    for _ in range(3):
        set_gradients(ours, theirs)
        fast.step()
        textbook.step()
        clamp(theirs, 0.1)
        ours, fast = copy.deepcopy((ours, fast))
        assert fast.param_groups[0]["params"][0] is ours[0]
    assert_same(ours, theirs)


def test_schedules_and_tensor_learning_rates():
    ours, theirs = twins()
    rate = torch.tensor(0.02, dtype=torch.float64)
    fast, textbook = RMSprop(ours, lr=rate), torch_rmsprop(theirs, lr=0.02)
    schedules = [torch.optim.lr_scheduler.ExponentialLR(o, 0.5) for o in (fast, textbook)]
    for _ in range(5):
        set_gradients(ours, theirs)
        for optimizer, schedule in zip((fast, textbook), schedules, strict=True):
            optimizer.step()
            schedule.step()
    assert_same(ours, theirs)
    assert rate.item() == pytest.approx(0.02 * 0.5**5)


def test_memory_formats_of_gradient_state_and_parameter():
    """The parameters become channels_last in training; the state that there is goes with them."""
    ours, theirs = twins(shapes=((6, 3, 5, 4), (8, 3, 1, 1)))
    fast, textbook = (
        RMSprop(ours, momentum=0.9, clip_value=0.1),
        torch_rmsprop(theirs, momentum=0.9),
    )
    for step in range(4):
        set_gradients(ours, theirs)
        if step == 1:
            for parameter in ours:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        if step == 2:
            for parameter in ours:
                parameter.grad = parameter.grad.transpose(0, 3).contiguous().transpose(0, 3)
        fast.step()
        textbook.step()
        clamp(theirs, 0.1)
    assert_same(ours, theirs)
    assert fast.state[ours[0]]["square_avg"].is_contiguous(memory_format=torch.channels_last)


def test_closure():
    parameters, _ = twins()
    fast = RMSprop(parameters)
    calls = []

    def closure():
        fast.zero_grad()
        loss = sum((parameter**2).sum() for parameter in parameters)
        loss.backward()
        calls.append(loss.item())
        return loss

    before = [parameter.detach().clone() for parameter in parameters]
    assert fast.step(closure).item() == calls[0]
    assert len(calls) == 1
    assert all(not torch.equal(p, b) for p, b in zip(parameters, before, strict=True) if p.numel())


def test_gradient_scaler():
    """Gradients are unscaled before the step, and a step with infinite ones is left out."""
    ours, theirs = twins(torch.float32)
    fast, textbook = RMSprop(ours, clip_value=0.1), torch_rmsprop(theirs)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        set_gradients(ours, theirs)
        scaler.scale(torch.zeros(()))
        for parameter in ours:
            parameter.grad.mul_(scaler.get_scale())
        if step == 2:
            ours[0].grad[0, 0] = torch.inf
        scaler.step(fast)
        scaler.update()
        if step != 2:
            textbook.step()
            clamp(theirs, 0.1)
    assert_same(ours, theirs, 1e-6)
    assert scaler.get_scale() == 512.0


def test_capturable_counts_on_the_device():
    ours, theirs = twins()
    fast, textbook = RMSprop(ours, capturable=True), torch_rmsprop(theirs)
    set_gradients(ours, theirs)
    fast.step()
    textbook.step()
    assert_same(ours, theirs)
    assert all(state["step"].device == p.device for p, state in fast.state.items())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, "lr: expected a finite number ≥ 0, got -1.0"),
        ({"lr": torch.ones(2)}, ValueError, "lr: expected a number or a tensor with one"),
        ({"alpha": "0.9"}, TypeError, "alpha: expected a number, got '0.9'"),
        ({"eps": -1e-8}, ValueError, "eps: expected a finite number"),
        ({"momentum": -0.1}, ValueError, "momentum: expected a finite number"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay: expected a finite number"),
        ({"clip_value": 0.0}, ValueError, "clip_value: expected a finite number > 0, got 0.0"),
        ({"clip_value": torch.ones(1)}, TypeError, "clip_value: expected a number"),
    ],
)
def test_refuses_what_it_cannot_do(options, error, message):
    with pytest.raises(error, match=message):
        RMSprop([nn.Parameter(torch.ones(2))], **options)


def test_refuses_a_group_and_stays_as_it_was():
    fast = RMSprop([nn.Parameter(torch.ones(2))])
    with pytest.raises(ValueError, match="clip_value: expected a finite number > 0"):
        fast.add_param_group({"params": [nn.Parameter(torch.ones(2))], "clip_value": -1.0})
    assert len(fast.param_groups) == 1


def test_refuses_complex_parameters_and_sparse_gradients():
    with pytest.raises(TypeError, match=r"params: expected float64.*got a torch.complex64 tensor"):
        RMSprop([nn.Parameter(torch.ones(2, dtype=torch.complex64))])
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match=r"params: expected dense gradients, got one of layout"):
        RMSprop(embedding.parameters()).step()


# -- in the loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["eager", "captured"])
def test_the_critic_loop_gives_the_textbooks_parameters(mode):
    networks = MLPGenerator(4, 2, 8).double(), MLPCritic(2, 8).double()
    loops = []
    for make in (
        lambda critic: RMSprop(critic.parameters(), lr=1e-3, clip_value=0.05),
        lambda critic: torch_rmsprop(critic.parameters(), lr=1e-3),
    ):
        generator, critic = copy.deepcopy(networks)
        loops.append(
            CriticLoop(
                generator, critic, torch_rmsprop(generator.parameters(), lr=1e-3), make(critic),
                latent_shape=4, objective="wgan", n_critic=3, clip_value=0.05, mode=mode,
                rng=torch.Generator().manual_seed(3),
            )
        )  # fmt: skip
    for _ in range(20):
        reals = torch.randn(3, 5, 2, dtype=torch.float64)
        for loop in loops:
            loop(reals)
    for name in ("generator", "critic"):
        ours, theirs = (getattr(loop, name).state_dict() for loop in loops)
        for key, got in ours.items():
            torch.testing.assert_close(got, theirs[key], rtol=1e-8, atol=1e-10, msg=key)
    assert max(p.abs().max() for p in loops[0].critic.parameters()) <= 0.05


def test_a_bound_of_the_optimisers_stands_for_the_loops():
    """Also where it is of one group alone: the other is free."""
    generator, critic = MLPGenerator(4, 2, 8), MLPCritic(2, 8)
    clipped, free = list(critic.parameters())[:2], list(critic.parameters())[2:]
    optimizer = RMSprop([{"params": clipped, "clip_value": 0.02}, {"params": free}], lr=1e-3)
    before = max(p.abs().max().item() for p in free)
    loop = CriticLoop(
        generator, critic, torch_rmsprop(generator.parameters()), optimizer,
        latent_shape=4, objective="wgan", n_critic=2,
    )  # fmt: skip
    assert loop.clip_value == 0.02
    loop(torch.randn(2, 5, 2))
    assert max(p.abs().max() for p in clipped) == torch.tensor(0.02)
    assert max(p.abs().max().item() for p in free) > before / 2 > 0.02


def test_a_bound_of_the_loops_is_not_ignored():
    generator, critic = MLPGenerator(4, 2, 8), MLPCritic(2, 8)
    optimizer = RMSprop(critic.parameters(), lr=1e-3, clip_value=0.02)

    def loop(**options):
        return CriticLoop(
            generator, critic, torch_rmsprop(generator.parameters()), optimizer,
            latent_shape=4, objective="wgan", n_critic=2, **options,
        )  # fmt: skip

    message = r"clip_value: expected it to be left out .* to 0.02, got {}; .*param_groups"
    for given in (0.01, 0.5, None):
        with pytest.raises(ValueError, match=message.format(given)):
            loop(clip_value=given)
    same, none = loop(clip_value=0.02), loop()
    assert same.clip_value == none.clip_value == 0.02
    for there in (same, none):
        for later in (0.01, None):
            with pytest.raises(ValueError, match=message.format(later)):
                there.clip_value = later
        there.clip_value = 0.02
    optimizer.param_groups[0]["clip_value"] = 0.3
    assert none.clip_value == 0.3
    with pytest.raises(ValueError, match="clip_value: expected a finite number > 0"):
        none.clip_value = -0.3
    optimizer.param_groups[0]["clip_value"] = None
    none.clip_value = 0.001
    none(torch.randn(2, 5, 2))
    assert max(p.abs().max() for p in critic.parameters()) == torch.tensor(0.001)


def test_a_loop_clips_to_a_hundredth_if_left_to_itself():
    generator, critic = MLPGenerator(4, 2, 8), MLPCritic(2, 8)
    optimizers = (torch_rmsprop(module.parameters()) for module in (generator, critic))
    loop = CriticLoop(generator, critic, *optimizers, latent_shape=4, objective="wgan", n_critic=2)
    assert loop.clip_value == 0.01
    loop(torch.randn(2, 5, 2))
    assert max(p.abs().max() for p in critic.parameters()) == torch.tensor(0.01)


@pytest.mark.cuda
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_on_cuda(dtype, options):
    if ops.status()["rmsprop_"]["cuda"] == "plain PyTorch":
        pytest.skip("the extension was built without CUDA")
    shapes = (*SHAPES, *[(7,)] * 200)  # more than one table of any kind
    ours, theirs = ([p.detach().cuda().requires_grad_() for p in ps] for ps in twins(dtype, shapes))
    fast = RMSprop(ours, clip_value=0.08, **options)
    textbook = torch_rmsprop(theirs, **options)
    for _ in range(5):
        set_gradients(ours, theirs)
        fast.step()
        textbook.step()
        clamp(theirs, 0.08)
    assert_same(ours, theirs, 1e-10 if dtype == torch.float64 else 2e-5)


@pytest.mark.cuda
def test_in_a_cuda_graph():
    ours, theirs = ([p.detach().cuda().requires_grad_() for p in ps] for ps in twins())
    rate = torch.tensor(1e-2, device="cuda")
    fast, textbook = RMSprop(ours, rate, capturable=True, clip_value=0.08), torch_rmsprop(theirs)
    set_gradients(ours, theirs)
    fast.step()
    textbook.step()
    clamp(theirs, 0.08)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fast.step()
    for factor in (1.0, 0.5, 0.25):
        rate.fill_(1e-2 * factor)
        textbook.param_groups[0]["lr"] = rate.item()
        for one, other in zip(ours, theirs, strict=True):
            one.grad.normal_()
            other.grad.copy_(one.grad)
        graph.replay()
        textbook.step()
        clamp(theirs, 0.08)
    assert_same(ours, theirs, 1e-10)
    assert {state["step"].item() for state in fast.state.values()} == {4.0}


@pytest.mark.cuda
def test_refuses_what_a_replay_would_not_see():
    parameter = nn.Parameter(torch.ones(3, device="cuda"))
    parameter.grad = torch.ones_like(parameter)
    fast = RMSprop([parameter])
    fast.step()
    graph = torch.cuda.graph(torch.cuda.CUDAGraph())
    with pytest.raises(RuntimeError, match="capturable: expected True"), graph:
        fast.step()
