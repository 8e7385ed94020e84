"""CriticLoop against loops that are written out, and what it refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from wgan_fast import CriticLoop, TraceError, reference
from wgan_fast.models import DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator

BATCH, N_CRITIC, LATENT = 5, 3, 4
MODES = ["eager", "captured"]


def points(dtype=torch.float64, batch=BATCH):
    return torch.randn(N_CRITIC, batch, 2, dtype=dtype)


def toys():
    generator, critic = MLPGenerator(LATENT, 2, 8).double(), MLPCritic(2, 8).double()
    with torch.no_grad():
        for layer in (*generator.layers, *critic.layers):
            if isinstance(layer, nn.Linear):
                # Of a sample that no unit before answers to, the bias alone is left: where that is
                # zero but for rounding, so would be which side of the kink it is on.
                layer.bias.normal_(std=0.1)
    return generator, critic


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=1e-3, betas=(0.0, 0.9))


def make(generator, critic, optimizer=adam, **options):
    options = {"latent_shape": LATENT, "n_critic": N_CRITIC, **options}
    options.setdefault("rng", torch.Generator().manual_seed(3))
    return CriticLoop(generator, critic, optimizer(generator), optimizer(critic), **options)


def assert_same(one, other, rtol=1e-8, atol=1e-9):
    # Adam divides by a gradient's size: rounding is seen where that should be zero.
    for got, wanted in ((one.generator, other.generator), (one.critic, other.critic)):
        for (name, value), expected in zip(
            got.state_dict().items(), wanted.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(value, expected, rtol=rtol, atol=atol, msg=name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("objective", ["wgan-gp", "wgan"])
def test_the_textbook_loop(objective, mode):
    generator, critic = toys()
    twins = copy.deepcopy((generator, critic))
    optimizers = [adam(twin) for twin in twins]
    loop = make(generator, critic, objective=objective, mode=mode, weight=3.0, clip_value=0.1)
    rng = torch.Generator().manual_seed(3)

    def draw(draw, *shape):
        return draw(shape, generator=rng, dtype=torch.float64)

    for _ in range(8):
        reals = points()
        stats = loop(reals)
        z, alpha = draw(torch.randn, N_CRITIC, BATCH, LATENT), draw(torch.rand, N_CRITIC, BATCH)
        losses = []
        for step in range(N_CRITIC):
            given = (*twins, optimizers[1], reals[step], z[step])
            if objective == "wgan-gp":
                loss = reference.wgan_gp_critic_step(*given, alpha[step], weight=3.0)
            else:
                loss = reference.wgan_critic_step(*given, clip_value=0.1)
            losses.append(loss)
        z = draw(torch.randn, BATCH, LATENT)
        generator_loss = reference.wgan_generator_step(*twins, optimizers[0], z)
        torch.testing.assert_close(stats.critic_loss, torch.stack(losses).mean())
        torch.testing.assert_close(stats.generator_loss, generator_loss)
    for one, other in zip((generator, critic), twins, strict=True):
        for got, wanted in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("mode", MODES)
def test_dcgan_is_cross_entropy_on_logits(mode):
    generator, critic = toys()
    twins = copy.deepcopy((generator, critic))
    loop = make(generator, critic, objective="dcgan", mode=mode, n_critic=1)
    rng = torch.Generator().manual_seed(3)
    reals = points()[:1]
    stats = loop(reals)
    z = torch.randn(1, BATCH, LATENT, generator=rng, dtype=torch.float64)
    torch.rand(1, BATCH, generator=rng, dtype=torch.float64)
    ones = torch.ones(BATCH, dtype=torch.float64)
    entropy = F.binary_cross_entropy_with_logits
    loss = entropy(twins[1](reals[0]), ones) + entropy(twins[1](twins[0](z[0])), 0 * ones)
    torch.testing.assert_close(stats.critic_loss, loss.detach())
    z = torch.randn(BATCH, LATENT, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(stats.generator_loss, entropy(critic_before(loop, z), ones))
    assert stats.wasserstein is None
    assert stats.penalty is None
    assert stats.gradient_norm is None


def critic_before(loop, z):
    """The scores that the generator's step saw: its own step is undone by Adam's known update."""
    generator = copy.deepcopy(loop.generator)
    for parameter, trained in zip(generator.parameters(), loop.generator.parameters(), strict=True):
        state = loop.generator_optimizer.state[trained]
        # After one step of Adam with β₁ = 0, the update is lr · g / (|g| + ε √(1 − β₂) ...).
        moved = state["exp_avg"] / (state["exp_avg_sq"].div(1 - 0.9).sqrt() + 1e-8)
        parameter.data.add_(moved, alpha=1e-3)
    return loop.critic(generator(z)).detach()


@pytest.mark.parametrize("mode", MODES)
def test_statistics(mode):
    loop = make(*toys(), mode=mode)
    stats = loop(points())
    assert stats.weight is None  # a constant, which the caller knows
    measured = stats[:-1]
    assert all(value.shape == () and not value.requires_grad for value in measured)
    torch.testing.assert_close(stats.wasserstein, stats.real_score - stats.fake_score)
    torch.testing.assert_close(
        stats.critic_loss, -stats.wasserstein + 10 * stats.penalty, rtol=1e-8, atol=1e-10
    )
    assert stats.gradient_norm > 0


def with_images():
    size = {"channels": 2, "image_channels": 1}
    return DCGANGenerator(16, latent_dim=LATENT, **size), DCGANCritic(16, **size)


def test_changes_between_calls_are_seen():
    """A partial batch, a schedule, λ, and eval mode, in float64 on a generator with BatchNorm."""
    generator, critic = (module.double() for module in with_images())
    loops = [make(*copy.deepcopy((generator, critic)), mode=mode) for mode in ("eager", "captured")]
    schedules = [
        torch.optim.lr_scheduler.ExponentialLR(loop.critic_optimizer, 0.5) for loop in loops
    ]
    for step in range(10):
        batch = BATCH if step != 4 else 2
        reals = torch.randn(N_CRITIC, batch, 1, 16, 16, dtype=torch.float64)
        for loop, schedule in zip(loops, schedules, strict=True):
            loop.weight = 10.0 if step < 6 else 1.0
            loop.generator.train(step != 7)
            loop(reals)
            if step > 7:
                schedule.step()
    assert_same(*loops)
    assert loops[0].generator.state_dict()["layers.1.num_batches_tracked"] > 20


def test_a_critic_with_state_and_a_critic_with_batch_statistics():
    for layer in (
        spectral_norm(nn.Linear(2, 8)),
        # A bias there has no gradient but rounding, which Adam would make a step of.
        nn.Sequential(nn.Linear(2, 8, bias=False), nn.BatchNorm1d(8)),
    ):
        critic = nn.Sequential(layer, nn.Tanh(), nn.Linear(8, 1)).double()
        generator, _ = toys()
        for objective in ("wgan-gp", "wgan", "dcgan"):
            loops = [
                make(*copy.deepcopy((generator, critic)), mode=mode, objective=objective)
                for mode in ("eager", "captured")
            ]
            for _ in range(4):
                reals = points()
                for loop in loops:
                    loop(reals)
            assert_same(*loops)


def test_one_call_of_the_generator_for_all_steps_where_samples_keep_apart():
    calls = []

    class Counting(MLPGenerator):
        def forward(self, z):
            calls.append(len(z))
            return super().forward(z)

    class Mixing(Counting):
        def forward(self, z):
            return super().forward(z) - z.mean(0, keepdim=True)[:, :2]

    _, critic = toys()
    for kind, sizes in ((Counting, [15, 5]), (Mixing, [5, 5, 5, 5])):
        loop = make(kind(LATENT, 2, 8).double(), copy.deepcopy(critic), mode="eager")
        loop(points())
        calls.clear()
        loop(points())
        assert calls == sizes


def test_float32_and_autocast():
    for autocast in (False, True):
        generator, critic = (module.float() for module in toys())
        loops = [
            make(*copy.deepcopy((generator, critic)), mode=mode) for mode in ("eager", "captured")
        ]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for _ in range(3):
                reals = points(torch.float32)
                seen = [loop(reals) for loop in loops]
        torch.testing.assert_close(*seen, rtol=3e-2, atol=3e-2)
        assert_same(*loops, rtol=1e-2, atol=1e-2 if autocast else 1e-3)


def test_one_autocast_context_around_the_whole_loop_keeps_no_old_weights():
    twins = [module.float() for module in toys()]
    loops = [make(*copy.deepcopy(twins), mode="eager") for _ in range(2)]
    batches = [points(torch.float32) for _ in range(3)]
    for loop, cache in zip(loops, (True, False), strict=True):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=cache):
            for reals in batches:
                loop(reals)
    assert_same(*loops, rtol=0, atol=0)


class Branching(MLPCritic):
    def forward(self, x):
        scores = super().forward(x)
        return scores if scores.mean() > 0 else 2 * scores


def test_auto_runs_eagerly_what_cannot_be_frozen(caplog):
    generator, critic = toys()[0], Branching(2, 8).double()
    loops = [make(*copy.deepcopy((generator, critic)), mode=mode) for mode in ("eager", "auto")]
    for _ in range(3):
        reals = points()
        for loop in loops:
            loop(reals)
    assert_same(*loops)
    lines = [line.getMessage() for line in caplog.records if line.name == "wgan_fast"]
    assert len(lines) == 2  # the critic's step and the generator's
    assert all("runs eagerly" in line and "reads a number" in line for line in lines)
    with pytest.raises(TraceError, match="reads a number"):
        make(generator, critic, mode="captured")(points())


def descent(module):
    """Unlike Adam, this makes nothing of a gradient that is zero but for rounding."""
    return torch.optim.SGD(module.parameters(), lr=1e-3)


def test_compiled():
    generator, critic = toys()
    loops = [
        make(*copy.deepcopy((generator, critic)), descent, mode=mode)
        for mode in ("eager", "compiled")
    ]
    for _ in range(3):
        reals = points()
        for loop in loops:
            loop(reals)
    assert_same(*loops)


def test_arguments():
    generator, critic = toys()
    with pytest.raises(TypeError, match=r"critic: expected an nn.Module"):
        CriticLoop(generator, len, adam(generator), adam(critic), latent_shape=LATENT)
    with pytest.raises(TypeError, match=r"critic_optimizer: expected a torch.optim.Optimizer"):
        CriticLoop(generator, critic, adam(generator), 0.1, latent_shape=LATENT)
    with pytest.raises(ValueError, match="generator_optimizer: expected it over"):
        CriticLoop(generator, critic, adam(critic), adam(critic), latent_shape=LATENT)
    for options, message in (
        ({"latent_shape": 0}, "latent_shape: expected a positive integer"),
        ({"objective": "wgan_gp"}, "objective: "),
        ({"mode": "graph"}, "mode: "),
        ({"n_critic": 0}, "n_critic: expected an integer of at least 1"),
        ({"clip_value": -1.0}, "clip_value: "),
        ({"backend": "first_order", "mode": "captured"}, 'backend: "first_order"'),
    ):
        with pytest.raises(ValueError, match=message):
            make(generator, critic, **options)
    loop = make(generator, critic)
    with pytest.raises(ValueError, match=r"reals: expected shape \(n_critic, B, ...\)"):
        loop(points()[:2])
    with pytest.raises(TypeError, match="reals: "):
        loop(3)
    with pytest.raises(ValueError, match="generator: expected samples shaped as the real ones"):
        loop(torch.randn(N_CRITIC, BATCH, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="critic: expected parameters that require gradients"):
        make(generator, copy.deepcopy(critic).requires_grad_(False))
    critic.layers[0].weight.register_hook(lambda gradient: gradient)
    with pytest.raises(ValueError, match=r"critic: layers.0.weight has a hook"):
        make(generator, critic)


def test_a_failed_call_changes_nothing():
    generator, critic = toys()
    loop = make(generator, critic)
    before = copy.deepcopy((generator.state_dict(), critic.state_dict()))
    with pytest.raises(ValueError, match="generator: expected samples"):
        loop(torch.randn(N_CRITIC, BATCH, 3, dtype=torch.float64))
    for module, was in zip((generator, critic), before, strict=True):
        for name, value in module.state_dict().items():
            assert torch.equal(value, was[name])


@pytest.mark.parametrize("mode", ["eager", "captured"])
def test_a_copy_trains_its_own_modules(mode):
    loop = make(*toys(), mode=mode, rng=torch.Generator().manual_seed(3))
    for _ in range(3):
        loop(points())
    twin = copy.deepcopy(loop)
    for _ in range(3):
        before = copy.deepcopy(list(twin.critic.parameters()))
        batch = points()
        loop(batch)
        assert all(map(torch.equal, twin.critic.parameters(), before))
        twin(batch)
        for name in ("generator", "critic"):
            pairs = zip(
                getattr(loop, name).parameters(), getattr(twin, name).parameters(), strict=True
            )
            for parameter, expected in pairs:
                assert parameter is not expected
                torch.testing.assert_close(parameter, expected)
