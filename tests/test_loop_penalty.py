"""CriticLoop with an adaptive λ, lazy penalty and drift, against the textbook written out."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.test_capture_contract import (
    LATENT,
    N_CRITIC,
    RecordedLoop,
    assert_same,
    loop_over,
    reals,
)
from wgan_fast import AdaptiveWeight, CriticLoop, reference
from wgan_fast.cuda_graph import WARM_UP_CALLS
from wgan_fast.models import MLPCritic, MLPGenerator

BATCH = 4


def steep_rise():
    """A λ whose steps are large enough to be seen in a few of them."""
    return AdaptiveWeight(2.0, target=0.3, rate=0.2, limits=(0.5, 4.0))


OPTIONS = {
    "adaptive": {"penalty": "adaptive"},
    "adaptive and zero-centred": {"penalty": "zero", "weight": steep_rise},
    "lazy": {"every": 3, "weight": 2.0},
    "drift": {"drift": 0.3},
    "all of it": {"penalty": "zero", "weight": steep_rise, "every": 3, "drift": 0.3},
}


def given(options):
    """The options for one loop: an adaptive λ of its own."""
    return {name: value() if callable(value) else value for name, value in options.items()}


def toys():
    return MLPGenerator(LATENT, 2, 8).double(), MLPCritic(2, 8).double()


def textbook(loop, options):
    """An iteration of the textbook with these options; yields the statistics of each."""
    form = {"target": 0.0} if options.get("penalty") == "zero" else {}
    rule = options.get("weight", 10.0)
    if options.get("penalty") == "adaptive":
        rule = AdaptiveWeight
    rule = rule() if callable(rule) else rule
    adaptive = isinstance(rule, AdaptiveWeight)
    every, drift = options.get("every", 1), options.get("drift", 0.0)
    rng = torch.Generator().manual_seed(7)

    def draw(draw, *shape):
        return draw(shape, generator=rng, dtype=torch.float64)

    taken, stats = 0, None
    while True:
        batch = yield stats
        z, alpha = draw(torch.randn, N_CRITIC, BATCH, LATENT), draw(torch.rand, N_CRITIC, BATCH)
        losses, norms, weights = [], [], []
        for step in range(N_CRITIC):
            real, fake = batch[step], loop.generator(z[step]).detach()
            weight = rule.weight.item() if adaptive else rule
            weights.append(weight)
            scores = loop.critic(fake).mean(), loop.critic(real)
            loss = scores[0] - scores[1].mean() + drift * scores[1].square().mean()
            if taken % every == 0:
                a = alpha[step][:, None]
                norm = reference.dual_norms(loop.critic, a * real + (1 - a) * fake)
                excess = norm - form.get("target", 1.0)
                loss = loss + every * weight * excess.square().mean()
                norms.append(norm.mean().item())
                if adaptive:
                    rule.update(norm.detach())
            taken += 1
            losses.append(loss.item())
            loop.critic_optimizer.zero_grad()
            loss.backward()
            loop.critic_optimizer.step()
        z = draw(torch.randn, BATCH, LATENT)
        reference.wgan_generator_step(loop.generator, loop.critic, loop.generator_optimizer, z)
        means = [sum(values) / len(values) if values else None for values in (losses, norms)]
        stats = (*means, sum(weights) / N_CRITIC if adaptive else None)


def same_as_the_textbook(kind, mode, options, calls):
    networks = toys()
    twins = copy.deepcopy(networks)
    loop = loop_over(kind, *networks, mode=mode, **given(options))
    other = loop_over(CriticLoop, *twins, mode="eager")
    expected = textbook(other, options)
    next(expected)
    for _ in range(calls):
        batch = reals()
        stats = loop(batch)
        wanted = expected.send(batch)
        seen = stats.critic_loss, stats.gradient_norm, stats.weight
        for got, value in zip(seen, wanted, strict=True):
            assert (got is None) == (value is None)
            if value is not None:
                assert got.item() == pytest.approx(value, rel=1e-8, abs=1e-10)
    for ours, theirs in zip(networks, twins, strict=True):
        for got, value in zip(ours.parameters(), theirs.parameters(), strict=True):
            # Adam divides by a gradient's size: rounding is seen where that should be zero.
            torch.testing.assert_close(got, value, rtol=1e-8, atol=1e-9)
    return loop


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_textbook(name, mode):
    same_as_the_textbook(CriticLoop, mode, OPTIONS[name], 7)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_textbook_replayed(name):
    loop = same_as_the_textbook(RecordedLoop, "captured", OPTIONS[name], 3 * WARM_UP_CALLS + 9)
    # Of two steps with the penalty in every third, it comes in the first, in the second, in none.
    assert len(loop.graphs) == (3 if "every" in OPTIONS[name] else 1)
    assert all(graph.replays >= 3 for graph in loop.graphs)


def test_the_textbook_compiled():
    same_as_the_textbook(CriticLoop, "compiled", OPTIONS["all of it"], 4)


def test_graphs_of_all_patterns_are_kept():
    """Seventeen steps apart, two at a time: three patterns in an order that comes round late."""
    networks = toys()
    twins = copy.deepcopy(networks)
    loop = loop_over(RecordedLoop, *networks, mode="captured", every=17)
    eager = loop_over(CriticLoop, *twins, mode="eager", every=17)
    for _ in range(5 * 17):
        batch = reals()
        loop(batch)
        eager(batch)
    assert len(loop.graphs) == 3
    assert_same(loop, eager)


def test_another_weight_between_calls_is_never_ignored_by_a_replay():
    networks = toys()
    twins = copy.deepcopy(networks)
    loop = loop_over(RecordedLoop, *networks, mode="captured", penalty="adaptive")
    eager = loop_over(CriticLoop, *twins, mode="eager", penalty="adaptive")
    for make in (None, lambda: 3.0, steep_rise, lambda: 5.0):
        for each in (loop, eager):
            each.weight = each.weight if make is None else make()
        for _ in range(WARM_UP_CALLS + 2):
            batch = reals()
            for got, wanted in zip(loop(batch), eager(batch), strict=True):
                assert (got is None) == (wanted is None)
                if wanted is not None:
                    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-11)
    assert_same(loop, eager)
    assert len(loop.graphs) == 3  # both numbers are inputs of the same one


@pytest.mark.parametrize("mode", ["eager", "captured", "recorded"])
def test_goes_on_from_its_state(mode):
    options = {**OPTIONS["all of it"], "weight": lambda: AdaptiveWeight(2.0, rate=0.03)}
    kind = RecordedLoop if mode == "recorded" else CriticLoop
    mode = "eager" if mode == "eager" else "captured"
    networks = toys()
    loop = loop_over(kind, *networks, mode=mode, **given(options))
    batches = [reals() for _ in range(14)]
    for batch in batches[:7]:
        loop(batch)
    again = loop_over(kind, *copy.deepcopy(networks), mode=mode, **given(options))
    for name in ("generator_optimizer", "critic_optimizer"):
        getattr(again, name).load_state_dict(copy.deepcopy(getattr(loop, name).state_dict()))
    again.rng.set_state(loop.rng.get_state())
    state = loop.state_dict()
    for batch in batches[7:]:
        loop(batch)
    assert state["adaptive_weight"].item() != loop.weight.weight.item()
    again.load_state_dict(state)
    for batch in batches[7:]:
        again(batch)
    assert_same(again, loop)
    torch.testing.assert_close(again.weight.weight, loop.weight.weight, rtol=1e-12, atol=0)


def test_a_failed_call_counts_nothing():
    loop = loop_over(CriticLoop, *toys(), mode="eager", every=5)
    with pytest.raises(ValueError, match="generator: expected samples"):
        loop(torch.randn(N_CRITIC, BATCH, 3, dtype=torch.float64))
    assert loop.state_dict() == {"critic_steps": 0, "weight": 10.0}
    assert loop(reals()).penalty is not None
    assert loop(reals()).penalty is None


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("objective", ["wgan", "dcgan"])
def test_drift_without_a_penalty(objective, mode):
    generator, critic = toys()
    twins = copy.deepcopy((generator, critic))
    options = {"clip_value": None, "mode": mode, "drift": 0.7}
    loop = loop_over(CriticLoop, generator, critic, objective, **options)
    loop.n_critic = 1
    batch = reals()[:1]
    stats = loop(batch)
    rng = torch.Generator().manual_seed(7)
    z = torch.randn(BATCH, LATENT, generator=rng, dtype=torch.float64)
    real, fake = twins[1](batch[0]), twins[1](twins[0](z).detach())
    loss = fake.mean() - real.mean()
    if objective == "dcgan":
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
    loss = loss + 0.7 * real.square().mean()
    loss.backward()
    assert stats.critic_loss.item() == pytest.approx(loss.item(), rel=1e-12)
    assert stats.penalty is stats.gradient_norm is stats.weight is None
    for got, wanted in zip(critic.parameters(), twins[1].parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-10, atol=1e-12)


def test_arguments():
    networks = toys()
    for options, kind, message in (
        ({"every": 0}, ValueError, "every: expected an integer of at least 1, got 0"),
        ({"every": 2.0}, ValueError, "every: expected an integer of at least 1, got 2.0"),
        ({"objective": "wgan", "every": 2}, ValueError, "every: expected 1 where there is no pen"),
        ({"objective": "wgan", "weight": AdaptiveWeight()}, ValueError, "weight: expected a num"),
        ({"objective": "wgan", "penalty": "adaptive"}, ValueError, 'penalty: .*is objective="wgan'),
        ({"penalty": "adaptive", "weight": 3.0}, ValueError, r'"adaptive" has its own λ, .*=3.0'),
        ({"drift": -1.0}, ValueError, "drift: expected a finite number ≥ 0"),
        ({"weight": "3"}, TypeError, "weight: expected a number"),
    ):
        with pytest.raises(kind, match=message):
            loop_over(CriticLoop, *networks, **options)
    loop = loop_over(CriticLoop, *networks, penalty="adaptive")
    with pytest.raises(ValueError, match=r"state: expected a dict of .*adaptive_weight.*got .*'we"):
        loop.load_state_dict({"critic_steps": 1, "weight": 3.0})
    with pytest.raises(ValueError, match=r"critic_steps: .* at least 0, got -1"):
        loop.load_state_dict({**loop.state_dict(), "critic_steps": -1})
    with pytest.raises(TypeError, match=r"weight: expected a number"):
        loop.weight = None
