"""The penalty family: every member against its float64 reference, on every backend."""

import dataclasses
import math
import pickle
import runpy
import sys

import pytest
import torch
from torch import nn

import wgan_fast
from tests.double_backward.oracle import error, gradients
from tests.harness import ROOT
from wgan_fast import Penalty, reference
from wgan_fast.double_backward import choice, merged
from wgan_fast.penalties import NAMED

BATCH = 6


def mlp():
    layers = nn.Linear(5, 7), nn.LayerNorm(7), nn.LeakyReLU(0.2), nn.Linear(7, 6), nn.SiLU()
    return nn.Sequential(*layers, nn.Linear(6, 1)).double(), (BATCH, 5)


def convolutional():
    layers = nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.LeakyReLU(0.2)
    more = nn.Conv2d(4, 3, 3, stride=2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(27, 1)
    return nn.Sequential(*layers, *more).double(), (BATCH, 2, 7, 7)


def seeing_each_other():
    layers = nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 1)
    return nn.Sequential(*layers).double(), (BATCH, 5)


CRITICS = {"mlp": mlp, "convolutional": convolutional}


def steep(critic, shape):
    """The critic with slopes around 2, so that a one-sided penalty has something to punish."""
    norms = reference.dual_norms(critic, torch.randn(shape, dtype=torch.float64))
    with torch.no_grad():
        critic[-1].weight.mul_(2 / norms.mean())
    return critic


def draws(shape, name):
    """(real, fake, α, noise, what makes wgan_fast draw the same)."""
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    fake = 0.5 * fake + 0.3
    if NAMED[name].at not in ("mix", "dragan"):
        return real, fake, None, None, {}
    seed = torch.Generator().manual_seed(torch.randint(2**31, ()).item())
    noise = None
    if NAMED[name].at == "dragan":
        noise = torch.rand(shape, dtype=torch.float64, generator=seed.clone_state())
    after = seed.clone_state()
    if noise is not None:
        torch.rand(shape, dtype=torch.float64, generator=after)
    alpha = torch.rand(BATCH, dtype=torch.float64, generator=after)
    return real, fake, alpha, noise, {"generator": seed}


def expected_penalty(name, critic, real, fake, alpha, noise):
    some = torch.zeros(BATCH, dtype=torch.float64) if alpha is None else alpha
    return reference.family_penalty(name, critic, real, fake, some, noise)


def expected_loss(name, critic, real, fake, alpha, noise, weight):
    some = torch.zeros(BATCH, dtype=torch.float64) if alpha is None else alpha
    return reference.family_loss(name, critic, real, fake, some, noise, weight)


def assert_agree(loss, expected, critic, tolerance=1e-10):
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance, abs=tolerance)
    assert error(gradients(loss, critic), gradients(expected, critic)) < tolerance


@pytest.mark.parametrize("backend", ["explicit", "autograd"])
@pytest.mark.parametrize("make", CRITICS.values(), ids=CRITICS)
@pytest.mark.parametrize("name", NAMED)
def test_gradient_penalty(name, make, backend):
    critic, shape = make()
    critic = steep(critic, shape)
    *samples, same = draws(shape, name)
    penalty, stats = wgan_fast.gradient_penalty(
        critic, *samples[:2], penalty=name, backend=backend, return_stats=True, **same
    )
    expected = expected_penalty(name, critic, *samples)
    assert expected.item() > 0
    assert_agree(penalty, expected, critic)
    assert stats.penalty.item() == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("backend", ["explicit", "autograd"])
@pytest.mark.parametrize("make", CRITICS.values(), ids=CRITICS)
@pytest.mark.parametrize("name", NAMED)
def test_critic_loss(name, make, backend):
    critic, shape = make()
    critic = steep(critic, shape)
    *samples, same = draws(shape, name)
    for _ in range(2):  # the second call knows what the first found out
        loss, stats = wgan_fast.critic_loss(
            critic,
            *samples[:2],
            penalty=name,
            backend=backend,
            return_stats=True,
            **{key: seed.clone_state() for key, seed in same.items()},
        )
        assert_agree(loss, expected_loss(name, critic, *samples, NAMED[name].weight), critic)
    expected = expected_penalty(name, critic, *samples)
    assert stats.penalty.item() == pytest.approx(expected.item(), rel=1e-10)
    assert choice.unmerged.get(critic, NAMED[name].at, torch.Size(shape)) is None


@pytest.mark.parametrize("name", NAMED)
def test_samples_that_see_each_other(name):
    critic, shape = seeing_each_other()
    *samples, same = draws(shape, name)
    loss = wgan_fast.critic_loss(critic, *samples[:2], penalty=name, weight=3.0, **same)
    assert_agree(loss, expected_loss(name, critic, *samples, 3.0), critic)
    assert choice.unmerged.get(critic, NAMED[name].at, torch.Size(shape))


@pytest.mark.parametrize("name", [name for name in NAMED if name != "max"])
def test_in_slices(name):
    critic, shape = convolutional()
    *samples, same = draws(shape, name)
    loss = wgan_fast.critic_loss(critic, *samples[:2], penalty=name, chunk_size=4, **same)
    assert_agree(loss, expected_loss(name, critic, *samples, NAMED[name].weight), critic)


@pytest.mark.parametrize("name", ["max", "div", "dragan", "r1+r2"])
def test_a_batch_beyond_the_cache(name, monkeypatch):
    """On a CPU it is cut into slices from the second call on, but for a maximum."""
    monkeypatch.setattr(merged, "_FITS_THE_CACHE", 64)
    layers = nn.Linear(5, 7), nn.LeakyReLU(0.2), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 1)
    critic = steep(nn.Sequential(*layers).double(), (BATCH, 5))
    *samples, same = draws((BATCH, 5), name)
    for _ in range(3):
        seeds = {key: seed.clone_state() for key, seed in same.items()}
        loss = wgan_fast.critic_loss(critic, *samples[:2], penalty=name, **seeds)
        assert_agree(loss, expected_loss(name, critic, *samples, NAMED[name].weight), critic)


def test_a_maximum_is_not_taken_in_slices():
    critic, shape = mlp()
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    for function in (wgan_fast.critic_loss, wgan_fast.gradient_penalty):
        with pytest.raises(ValueError, match=r"chunk_size: expected None .* maximum .* got 2"):
            function(critic, real, fake, penalty="max", chunk_size=2)
    with pytest.raises(ValueError, match=r"reduction: .* maximum"):
        wgan_fast.gradient_penalty(critic, real, fake, penalty="max", reduction="sum")


@pytest.mark.parametrize("name", NAMED)
def test_first_order(name):
    smooth = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.SiLU(), nn.Linear(6, 1))
    critic = steep(smooth.double(), (BATCH, 5))
    *samples, same = draws((BATCH, 5), name)
    loss = wgan_fast.critic_loss(
        critic, *samples[:2], penalty=name, backend="first_order", weight=1.0, **same
    )
    assert_agree(loss, expected_loss(name, critic, *samples, 1.0), critic, 1e-6)


@pytest.mark.parametrize("name", NAMED)
def test_frozen(name):
    critic, shape = mlp()
    critic = steep(critic, shape)
    *samples, same = draws(shape, name)
    step = wgan_fast.freeze(critic, torch.randn(shape, dtype=torch.float64), penalty=name)
    assert step.weight == NAMED[name].weight
    loss, stats = step(*samples[:2], return_stats=True, **same)
    assert_agree(loss, expected_loss(name, critic, *samples, NAMED[name].weight), critic)
    expected = expected_penalty(name, critic, *samples)
    assert stats.penalty.item() == pytest.approx(expected.item(), rel=1e-10)
    assert step.graph(samples[0]) is not None


@pytest.mark.parametrize("backend", ["explicit", "autograd", "first_order"])
@pytest.mark.parametrize("name", NAMED)
def test_zero_gradients_give_zero_and_no_nan(name, backend):
    """A score with no slope anywhere: φ(0), and no gradient from the penalty."""
    critic = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).double()
    nn.init.zeros_(critic[2].weight)
    *samples, same = draws((BATCH, 5), name)
    penalty = wgan_fast.gradient_penalty(
        critic, *samples[:2], penalty=name, backend=backend, **same
    )
    at_zero = 0.0 if NAMED[name].sided == "one" else NAMED[name].target ** NAMED[name].power
    assert penalty.item() == at_zero * NAMED[name].parts
    for found in gradients(penalty, critic):
        assert found is None or torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize("p", [1.0, math.inf])
def test_zeros_in_a_gradient_under_the_norms_with_kinks(p):
    """A linear critic, by hand: ∂‖w‖₁ = sign(w), 0 at 0; ∂‖w‖∞ = sign(w) at the largest, shared."""
    critic = nn.Linear(5, 1, bias=False).double()
    critic.weight.data.copy_(torch.tensor([[3.0, -3.0, 0.0, 1.0, -0.5]]))
    real, fake = torch.randn(2, BATCH, 5, dtype=torch.float64)
    penalty = wgan_fast.gradient_penalty(
        critic, real, fake, penalty=Penalty(p=p), backend="explicit"
    )
    norm = 3.0 if p == 1 else 7.5
    slope = [0.5, -0.5, 0.0, 0.0, 0.0] if p == 1 else [1.0, -1.0, 0.0, 1.0, -1.0]
    assert penalty.item() == pytest.approx((norm - 1) ** 2)
    expected = 2 * (norm - 1) * torch.tensor([slope], dtype=torch.float64)
    torch.testing.assert_close(gradients(penalty, critic)[0], expected)


def test_the_dual_of_p():
    """f(x) = w·x is 1-Lipschitz in ‖x‖ₚ where the dual norm of w is 1: then there is no penalty."""
    weights = {1.0: [1.0, -1.0, 0.3], 2.0: [0.6, 0.0, -0.8], math.inf: [0.5, -0.2, 0.3]}
    for p, row in weights.items():
        critic = nn.Linear(3, 1).double()
        critic.weight.data.copy_(torch.tensor([row], dtype=torch.float64))
        real, fake = torch.randn(2, 4, 3, dtype=torch.float64)
        penalty = wgan_fast.gradient_penalty(critic, real, fake, penalty=Penalty(p=p))
        assert penalty.item() == pytest.approx(0.0, abs=1e-25)
        ratio = (critic(real) - critic(fake)).abs().flatten() / (real - fake).norm(p, dim=1)
        assert ratio.max() <= 1 + 1e-12


@pytest.mark.parametrize("power", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("sided", ["one", "two"])
@pytest.mark.parametrize("at", ["mix", "both"])
def test_a_penalty_of_ones_own(power, sided, at):
    critic, shape = mlp()
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    alpha = torch.rand(BATCH, dtype=torch.float64) if at == "mix" else None
    own = Penalty(target=0.2, sided=sided, power=power, at=at, reduction="max", weight=0.7)
    loss = wgan_fast.critic_loss(critic, real, fake, penalty=own, alpha=alpha, backend="explicit")
    mix = at == "mix"
    points = [reference.interpolate(real, fake, alpha)] if mix else [real, fake]
    expected = critic(fake).mean() - critic(real).mean()
    for x in points:
        excess = reference.dual_norms(critic, x).max() - 0.2
        expected = expected + 0.7 * (excess.abs() if sided == "two" else excess.relu()) ** power
    assert_agree(loss, expected, critic)


def test_r1_looks_at_real_samples_alone():
    """A critic that is flat at the real samples and steep at the fake ones."""
    critic = nn.Sequential(nn.Linear(1, 1), nn.ReLU()).double()
    critic[0].weight.data.fill_(2.0)
    critic[0].bias.data.fill_(0.0)
    real, fake = -torch.rand(4, 1, dtype=torch.float64), torch.rand(4, 1, dtype=torch.float64)
    found = {
        name: wgan_fast.gradient_penalty(critic, real, fake, penalty=name).item()
        for name in ("r1", "r2", "r1+r2")
    }
    assert found == {"r1": 0.0, "r2": 4.0, "r1+r2": 4.0}


def test_dragan_stays_around_the_real_samples():
    real = 3 + 2 * torch.randn(64, 10, dtype=torch.float64)
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.square().sum(1)

    wgan_fast.gradient_penalty(critic, real, real + 100, penalty="dragan", backend="autograd")
    moved = (seen[0] - real) / (0.5 * real.std(correction=0))
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert moved.mean().item() == pytest.approx(0.25, abs=0.08)  # E α E u
    by_sample = moved.mean(1)  # αᵢ / 2 or nearly: one α per sample, not per element
    assert by_sample.std().item() == pytest.approx(1 / math.sqrt(48), rel=0.35)


@pytest.mark.parametrize("name", ["r1", "r2", "r1+r2", "dragan"])
def test_gradients_flow_into_the_samples_if_asked(name):
    real, fake = torch.randn(2, BATCH, 5, dtype=torch.float64).requires_grad_().unbind()

    def critic(x):
        return x.pow(3).sum(1)

    *_, noise, same = draws((BATCH, 5), name)
    after = same.get("generator", torch.Generator()).clone_state()
    loss = wgan_fast.gradient_penalty(critic, real, fake, penalty=name, detach=False, **same)
    if name == "dragan":
        torch.rand(noise.shape, dtype=torch.float64, generator=after)
        alpha = torch.rand(BATCH, dtype=torch.float64, generator=after)
        points = real + alpha[:, None] * 0.5 * real.std(correction=0) * noise
        expected = ((3 * points**2).norm(dim=1) - 1).square().mean()
    else:
        of = {"r1": [real], "r2": [fake], "r1+r2": [real, fake]}[name]
        expected = sum((3 * x**2).square().sum(1).mean() for x in of)
    found, wanted = (
        torch.autograd.grad(each, (real, fake), allow_unused=True, materialize_grads=True)
        for each in (loss, expected)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    with pytest.raises(RuntimeError, match=r"gradients of real and fake"):
        wgan_fast.gradient_penalty(
            critic, real, fake, penalty=name, detach=False, backend="explicit"
        )


@pytest.mark.parametrize("name", ["r1+r2", "banach-inf"])
def test_each_sample_by_itself(name):
    critic, shape = mlp()
    *samples, same = draws(shape, name)
    seeds = {key: seed.clone_state() for key, seed in same.items()}
    each = wgan_fast.gradient_penalty(critic, *samples[:2], penalty=name, reduction="none", **same)
    total = wgan_fast.gradient_penalty(critic, *samples[:2], penalty=name, reduction="sum", **seeds)
    assert each.shape == (BATCH,)
    for mean in (each.mean(), total / BATCH):
        assert_agree(mean, expected_penalty(name, critic, *samples), critic)


@pytest.mark.parametrize("name", NAMED)
def test_in_float32(name):
    critic, shape = mlp()
    critic = steep(critic, shape)
    narrow = mlp()[0].float()
    narrow.load_state_dict(critic.state_dict())
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    alpha = torch.rand(BATCH, dtype=torch.float64)
    options = {"alpha": alpha.float()} if NAMED[name].at in ("mix", "dragan") else {}
    noise = None
    if name == "dragan":
        options["generator"] = torch.Generator().manual_seed(torch.randint(2**31, ()).item())
        noise = torch.rand(shape, generator=options["generator"].clone_state()).double()
    loss = wgan_fast.critic_loss(narrow, real.float(), fake.float(), penalty=name, **options)
    expected = expected_loss(name, critic, real, fake, alpha, noise, NAMED[name].weight)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)
    found = [gradient.double() for gradient in gradients(loss, narrow)]
    assert error(found, gradients(expected, critic)) < 1e-3


def test_weight_as_a_tensor():
    critic, shape = mlp()
    *samples, same = draws(shape, "gp")
    for number in (torch.tensor(2.5), torch.tensor(2.5, dtype=torch.float64)):
        for backend in ("explicit", "autograd"):
            seed = {"generator": same["generator"].clone_state()}
            loss = wgan_fast.critic_loss(
                critic, *samples[:2], penalty="gp", weight=number, backend=backend, **seed
            )
            assert_agree(loss, expected_loss("gp", critic, *samples, 2.5), critic)
    narrow = nn.Linear(5, 1)
    real, fake = torch.randn(2, 3, 5)
    loss = wgan_fast.critic_loss(narrow, real, fake, weight=torch.tensor(1.0, dtype=torch.float64))
    assert loss.dtype == torch.float32


def test_the_loop_takes_the_family():
    """CriticLoop's critic step under each penalty, against the same step by hand."""
    for name in ("lp", "r1+r2", "dragan", "max"):
        found = []
        for by_hand in (False, True):
            torch.manual_seed(3)
            generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 5)).double()
            critic = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
            optimizer = torch.optim.SGD(critic.parameters(), 0.1)
            reals = torch.randn(1, BATCH, 5, dtype=torch.float64)
            if by_hand:
                z = torch.randn(1, BATCH, 2, dtype=torch.float64)
                noise = torch.rand(reals.shape, dtype=torch.float64) if name == "dragan" else None
                alpha = torch.rand(1, BATCH, dtype=torch.float64)[0]
                fake = generator(z[0]).detach()
                weight = NAMED[name].weight
                noise = None if noise is None else noise[0]
                reference.family_loss(name, critic, reals[0], fake, alpha, noise, weight).backward()
                optimizer.step()
            else:
                still = torch.optim.SGD(generator.parameters(), 0.0)
                loop = wgan_fast.CriticLoop(
                    generator, critic, still, optimizer, latent_shape=2, n_critic=1, penalty=name
                )
                loop(reals)
            found.append([parameter.detach().clone() for parameter in critic.parameters()])
        assert error(found[0], found[1]) < 1e-10, name


def test_where_it_cannot_be():
    generator, critic = nn.Linear(2, 4), nn.Linear(4, 1)
    optimizers = [torch.optim.SGD(module.parameters(), 0.1) for module in (generator, critic)]
    with pytest.raises(ValueError, match=r"penalty: expected None for objective='wgan', got 'lp'"):
        wgan_fast.CriticLoop(
            generator, critic, *optimizers, latent_shape=2, objective="wgan", penalty="lp"
        )
    with pytest.raises(TypeError, match=r"weight: expected a number, .* set step.weight"):
        wgan_fast.freeze(critic, torch.randn(3, 4), weight=torch.tensor(1.0))


def test_a_penalty_is_a_value():
    assert Penalty.named("gp") == Penalty()
    assert pickle.loads(pickle.dumps(NAMED["banach-1"])) == NAMED["banach-1"]
    assert dataclasses.replace(NAMED["r1"], weight=0.5).target == 0.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        Penalty().target = 2.0


ERRORS = {
    "target": ({"target": -1.0}, ValueError, "target: expected a finite number"),
    "power": ({"power": 0.5}, ValueError, "power: expected a number ≥ 1, got 0.5"),
    "p": ({"p": 3}, ValueError, "p: expected 1, 2 or math.inf, got 3"),
    "sided": ({"sided": "none"}, ValueError, "sided: expected one of 'two', 'one'"),
    "at": ({"at": "x"}, ValueError, "at: expected one of .*'dragan', got 'x'"),
    "reduction": ({"reduction": "sum"}, ValueError, "reduction: expected one of 'mean', 'max'"),
    "weight": ({"weight": "10"}, TypeError, "weight: expected a number"),
}


@pytest.mark.parametrize(("arguments", "kind", "message"), ERRORS.values(), ids=ERRORS)
def test_a_penalty_checks_its_numbers(arguments, kind, message):
    with pytest.raises(kind, match=message):
        Penalty(**arguments)


CALLS = {
    "unknown": ({"penalty": "wgan"}, ValueError, "penalty: expected one of 'gp', .* got 'wgan'"),
    "number": ({"penalty": 10.0}, TypeError, "penalty: expected a name or a .*Penalty, got 10.0"),
    "target": (
        {"penalty": "lp", "target": 0.0},
        ValueError,
        "penalty, target: .* got penalty='lp' and target=0.0",
    ),
    "sided": ({"penalty": "lp", "sided": "two"}, ValueError, "penalty, sided: "),
    "at": ({"penalty": Penalty(), "at": "real"}, ValueError, "penalty, at: "),
    "adaptive": ({"penalty": "adaptive"}, ValueError, "penalty: .*CriticLoss.*AdaptiveWeight"),
    "alpha": ({"penalty": "r1", "alpha": torch.rand(3)}, ValueError, "alpha, generator: .*'real'"),
}


@pytest.mark.parametrize(("arguments", "kind", "message"), CALLS.values(), ids=CALLS)
def test_a_call_checks_its_penalty(arguments, kind, message):
    critic = nn.Linear(4, 1)
    real, fake = torch.randn(2, 3, 4)
    with pytest.raises(kind, match=message):
        wgan_fast.critic_loss(critic, real, fake, **arguments)


def test_the_page_has_them_all_and_its_picture_can_be_drawn(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "penalties.md").read_text()
    assert all(f'`"{name}"`' in page for name in NAMED)
    monkeypatch.setattr(sys, "argv", ["plot_penalties.py", "--output", str(tmp_path / "phi.png")])
    runpy.run_path(str(ROOT / "docs" / "plot_penalties.py"), run_name="__main__")
    assert (tmp_path / "phi.png").stat().st_size > 10_000
