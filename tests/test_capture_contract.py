"""What a CUDA graph demands of the loop, shown without a GPU: see capture_recorder."""

import copy

import pytest
import torch

from tests.capture_recorder import CaptureRecorder, ForbiddenError
from wgan_fast import CriticLoop
from wgan_fast.cuda_graph import WARM_UP_CALLS
from wgan_fast.models import DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator
from wgan_fast.optim import RMSprop

BATCH, N_CRITIC, LATENT = 4, 2, 3


class RecordedLoop(CriticLoop):
    """The loop as on a GPU, with the recorder as its graph."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.graphs = []

    def _can_capture(self, device):
        return True

    def _new_graph(self, device):
        self.graphs.append(CaptureRecorder())
        return self.graphs[-1]


def networks(images=False):
    if images:
        size = {"channels": 2, "image_channels": 1}
        return DCGANGenerator(16, latent_dim=LATENT, **size), DCGANCritic(16, **size)
    return MLPGenerator(LATENT, 2, 8), MLPCritic(2, 8)


def usual_optimizer(module, objective):
    if objective == "wgan":
        return torch.optim.RMSprop(module.parameters(), lr=1e-3)
    return torch.optim.Adam(module.parameters(), lr=1e-3, betas=(0.0, 0.9), fused=True)


def loop_over(
    kind, generator, critic, objective="wgan-gp", optimizer_of=usual_optimizer, **options
):
    def optimizer(module):
        return optimizer_of(module, objective)

    return kind(
        generator, critic, optimizer(generator), optimizer(critic), latent_shape=LATENT,
        objective=objective, n_critic=N_CRITIC, rng=torch.Generator().manual_seed(7), **options,
    )  # fmt: skip


def pair(objective="wgan-gp", images=False, **options):
    """(captured, eager) from the same parameters and the same random numbers."""
    generator, critic = (module.double() for module in networks(images))
    twins = copy.deepcopy((generator, critic))
    captured = loop_over(RecordedLoop, generator, critic, objective, mode="captured", **options)
    return captured, loop_over(CriticLoop, *twins, objective, mode="eager", **options)


def reals(images=False, batch=BATCH):
    shape = (1, 16, 16) if images else (2,)
    return torch.randn(N_CRITIC, batch, *shape, dtype=torch.float64).tanh()


def assert_same(captured, eager):
    for one, other in ((captured.generator, eager.generator), (captured.critic, eager.critic)):
        for (name, got), wanted in zip(
            one.state_dict().items(), other.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-11, msg=name)


def reads_a_number(optimizer, *_):
    """A hook as people write them, to watch the gradients' size."""
    optimizer.watched = optimizer.param_groups[0]["params"][0].grad.norm().item()


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("objective", ["wgan-gp", "wgan", "dcgan"])
def test_fifty_replays_equal_eager(objective, images):
    captured, eager = pair(objective, images)
    for _ in range(WARM_UP_CALLS + 50):
        batch = reals(images)
        seen, wanted = captured(batch), eager(batch)
        for got, expected in zip(seen, wanted, strict=True):
            if expected is not None:
                torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-11)
    (graph,) = captured.graphs
    assert graph.replays == 50
    assert_same(captured, eager)


class Labelled(torch.nn.Module):
    """A generator, or a critic, that takes labels and attributes with its input."""

    def __init__(self, module):
        super().__init__()
        self.table, self.module = torch.nn.Embedding(4, 2), module

    def forward(self, x, labels, attributes):
        return self.module(x + torch.cat([self.table(labels), attributes], 1)[:, : x.shape[1]])


def test_conditions_are_read_in_every_replay():
    modules = [Labelled(module).double() for module in packed()]
    twins = copy.deepcopy(modules)
    captured = loop_over(RecordedLoop, *modules, mode="captured", pac=2)
    eager = loop_over(CriticLoop, *twins, mode="eager", pac=2)
    for _ in range(WARM_UP_CALLS + 20):
        labels = torch.randint(4, (N_CRITIC + 1, BATCH))
        attributes = torch.randn(N_CRITIC + 1, BATCH, 2, dtype=torch.float64)
        cond, own = (labels[1:], attributes[1:]), (labels[0], attributes[0])
        batch = reals()
        for got, expected in zip(captured(batch, cond, own), eager(batch, cond, own), strict=True):
            if expected is not None:
                torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-11)
    (graph,) = captured.graphs
    assert graph.replays == 20
    assert_same(captured, eager)


class OfPairs(torch.nn.Module):
    """A generator of two tensors, or a critic of them, with attributes."""

    def __init__(self, module, makes):
        super().__init__()
        self.module, self.makes = module, makes

    def forward(self, x, attributes):
        if self.makes:
            return self.module(x + attributes).split([1, 1], 1)
        return self.module(torch.cat(x, 1) + attributes[:, :2])


def test_masks_and_several_tensors_are_read_in_every_replay():
    generator, critic = packed()
    modules = OfPairs(generator, True).double(), OfPairs(critic, False).double()
    twins, options = copy.deepcopy(modules), {"pac": 2, "inputs": "separate"}
    captured = loop_over(RecordedLoop, *modules, mode="captured", **options)
    eager = loop_over(CriticLoop, *twins, mode="eager", **options)
    for _ in range(WARM_UP_CALLS + 10):
        attributes = torch.randn(N_CRITIC + 1, BATCH, LATENT, dtype=torch.float64)
        given = reals().split([1, 1], 2), attributes[1:], attributes[0]
        mask = torch.rand(N_CRITIC, BATCH, 1), torch.rand(()) > 0.5
        for got, expected in zip(
            captured(*given, mask=mask), eager(*given, mask=mask), strict=True
        ):
            if expected is not None:
                torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-11)
    (graph,) = captured.graphs
    assert graph.replays == 10
    assert_same(captured, eager)


def packed():
    """A generator, and a critic of two samples at a time."""
    critic = torch.nn.Sequential(torch.nn.Unflatten(0, (-1, 2)), MLPCritic(4, 8))
    return MLPGenerator(LATENT, 2, 8), critic


def test_results_of_a_replay_outlive_the_next():
    captured, _ = pair()
    for _ in range(WARM_UP_CALLS + 1):
        first = captured(reals())
    kept = first.critic_loss.clone()
    captured(reals())
    torch.testing.assert_close(first.critic_loss, kept, rtol=0, atol=0)


def change_batch(loop):
    return {"batch": BATCH - 1}


def change_learning_rate(loop):
    loop.critic_optimizer.param_groups[0]["lr"] = 3e-4


def change_mode(loop):
    loop.critic.eval()
    loop.generator.eval()


def change_weight(loop):
    loop.weight = 3.0


@pytest.mark.parametrize(
    ("change", "captures"),
    [(change_batch, 2), (change_learning_rate, 2), (change_mode, 2), (change_weight, 1)],
)
def test_a_change_is_never_ignored_by_a_replay(change, captures):
    captured, eager = pair(images=True)
    options = {}
    for step in range(3 * (WARM_UP_CALLS + 2)):
        if step == WARM_UP_CALLS + 2:
            options = change(captured) or {}
            change(eager)
        batch = reals(images=True, **options)
        captured(batch)
        eager(batch)
    assert len(captured.graphs) == captures
    assert captured.graphs[-1].replays > 1
    assert_same(captured, eager)


def test_clip_value_is_never_ignored_by_a_replay():
    captured, eager = pair("wgan")
    for step in range(3 * WARM_UP_CALLS):
        captured.clip_value = eager.clip_value = 0.01 if step < WARM_UP_CALLS + 2 else 0.002
        batch = reals()
        captured(batch)
        eager(batch)
    assert_same(captured, eager)
    assert max(p.abs().max() for p in captured.critic.parameters()) == 0.002


def test_the_optimisers_own_bound_is_captured_with_it():
    """And a new bound is a new capture."""
    modules = [module.double() for module in networks()]
    loops = []
    for kind, mode in ((RecordedLoop, "captured"), (CriticLoop, "eager")):
        generator, critic = copy.deepcopy(modules)
        optimizers = (
            RMSprop(generator.parameters(), lr=1e-3, capturable=True),
            RMSprop(critic.parameters(), lr=1e-3, capturable=True, clip_value=0.01),
        )
        loops.append(
            kind(
                generator, critic, *optimizers, latent_shape=LATENT, objective="wgan",
                n_critic=N_CRITIC, rng=torch.Generator().manual_seed(7), mode=mode,
            )
        )  # fmt: skip
    captured, eager = loops
    for step in range(3 * WARM_UP_CALLS + 3):
        bound = 0.01 if step < WARM_UP_CALLS + 2 else 0.002
        batch = reals()
        for loop in loops:
            loop.critic_optimizer.param_groups[0]["clip_value"] = bound
            loop(batch)
    assert_same(captured, eager)
    assert len(captured.graphs) == 2
    assert captured.graphs[-1].replays > 1
    assert max(p.abs().max() for p in captured.critic.parameters()) == 0.002


# -- deliberate violations -------------------------------------------------------------------------


def capture(function):
    recorder = CaptureRecorder()
    recorder.capture(function)
    return recorder


def test_an_item_is_caught():
    x = torch.randn(3)
    with pytest.raises(ForbiddenError, match="reads a number"):
        capture(lambda: x * x.sum().item())


def test_a_branch_on_a_loss_is_caught():
    loss = torch.randn(())
    with pytest.raises(ForbiddenError, match="reads a number"):
        capture(lambda: loss * 2 if loss > 0 else loss)


def test_a_fresh_host_tensor_is_caught():
    x = torch.randn(3)
    with pytest.raises(ForbiddenError, match="from the host"):
        capture(lambda: x * torch.tensor([1.0, 2.0, 3.0]))


def test_a_reallocated_buffer_is_caught():
    module = torch.nn.Linear(2, 2)
    x = torch.randn(4, 2)
    with torch.no_grad():
        recorder = capture(lambda: module(x))
        recorder.replay()
        module.weight.data = module.weight.data.clone()
        with pytest.raises(ForbiddenError, match="reallocated"):
            recorder.replay()


def test_a_capture_does_nothing_and_a_replay_everything():
    x, before = torch.zeros(2), torch.zeros(2)
    recorder = capture(lambda: x.add_(1))
    torch.testing.assert_close(x, before)
    recorder.replay()
    recorder.replay()
    torch.testing.assert_close(x, before + 2)


def test_the_loop_is_caught_where_its_optimiser_reads_a_number():
    generator, critic = MLPGenerator(LATENT, 2, 8).double(), MLPCritic(2, 8).double()
    loop = loop_over(RecordedLoop, generator, critic, mode="captured")
    loop.critic_optimizer.register_step_pre_hook(reads_a_number)
    for _ in range(WARM_UP_CALLS):
        loop(reals())
    with pytest.raises(ForbiddenError, match="reads a number"):
        loop(reals())


def test_auto_goes_on_eagerly_where_capture_fails(caplog):
    generator, critic = MLPGenerator(LATENT, 2, 8).double(), MLPCritic(2, 8).double()
    twins = copy.deepcopy((generator, critic))
    captured = loop_over(RecordedLoop, generator, critic, mode="auto")
    eager = loop_over(CriticLoop, *twins, mode="eager")
    captured.critic_optimizer.register_step_pre_hook(reads_a_number)
    for _ in range(WARM_UP_CALLS + 3):
        batch = reals()
        captured(batch)
        eager(batch)
    assert_same(captured, eager)
    (line,) = [line.getMessage() for line in caplog.records if line.name == "wgan_fast"]
    assert "runs eagerly" in line
    assert "reads a number" in line
