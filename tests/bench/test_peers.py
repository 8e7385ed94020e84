"""The peers compute what the textbook does, and one that cannot is reported and not replaced."""

import pytest
import torch
from torch import nn

from bench.critics import Problem
from bench.harness.case import Case
from bench.harness.interleave import Plan
from bench.harness.measure import measure
from bench.harness.results import Results
from bench.harness.table import table
from bench.peers import inductor
from bench.peers.conv2d_gradfix import Conv2dGradfix, gradfix_
from wgan_fast import reference

CPU = torch.device("cpu")
QUICK = Plan(rounds=2, seconds=0.0, sample_seconds=0.0, warmup_seconds=0.0)


def problem(*layers):
    critic = nn.Sequential(*layers, nn.Flatten(1), nn.LazyLinear(1)).double()
    real, fake = torch.randn(2, 3, 4, 9, 7, dtype=torch.float64)
    critic(real)
    return Problem(critic, real, fake, torch.rand(3, dtype=torch.float64))


def textbook(p):
    return reference.critic_loss(p.critic, p.real, p.fake, p.alpha)


def gradients(p):
    loss = textbook(p)
    return [loss, *torch.autograd.grad(loss, list(p.critic.parameters()))]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (3, 2), "padding": (2, 0), "bias": False},
        {"dilation": 2, "padding": 3},
        {"groups": 2, "stride": 2},
    ],
    ids=str,
)
def test_conv2d_gradfix_is_exact(settings):
    layers = nn.Conv2d(4, 6, 3, **settings), nn.SiLU(), nn.Conv2d(6, 4, 2, groups=2), nn.Tanh()
    p = problem(*layers)
    expected = gradients(p)
    gradfix_(p.critic)
    assert isinstance(p.critic[0], Conv2dGradfix)
    torch.testing.assert_close(gradients(p), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings", [{"padding": "same"}, {"padding_mode": "circular"}], ids=str)
def test_conv2d_gradfix_refuses_what_it_was_not_made_for(settings):
    critic = gradfix_(nn.Sequential(nn.Conv2d(1, 1, 3, **settings)))
    with pytest.raises(NotImplementedError, match="padding"):
        critic(torch.ones(1, 1, 5, 5))


def test_the_traced_step_is_exact_and_takes_what_it_is_given():
    p = problem(nn.Conv2d(4, 6, 3), nn.LayerNorm((6, 7, 5)), nn.SiLU())
    graph = inductor.traced(textbook, p)
    assert all("autograd" not in str(node.target) for node in graph.graph.nodes)
    for _ in range(2):
        expected = gradients(p)
        found = graph(*inductor._inputs(p))
        torch.testing.assert_close(found, [x.detach() for x in expected], rtol=1e-10, atol=1e-12)
        p = p._replace(real=torch.randn_like(p.real))
        with torch.no_grad():
            p.critic[0].weight.mul_(1.5)


def test_a_buffer_is_refused():
    with pytest.raises(NotImplementedError, match="buffer"):
        inductor.traced(textbook, problem(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)))


def test_a_step_is_compiled_once(monkeypatch):
    calls = []

    def compile(graph, inputs):
        calls.append(len(inputs))
        return graph

    monkeypatch.setattr("torch._inductor.compile", compile)
    p = problem(nn.Conv2d(4, 6, 3), nn.ReLU())
    prepare = inductor.compiled(textbook)
    first, second = prepare(p), prepare(p)
    assert calls == [4]
    torch.testing.assert_close(second.run(), [x.detach() for x in gradients(p)])
    assert first.step is second.step


def small_case(peer, **more):
    sides = {"textbook": lambda x: x * 2, "ours": lambda x: x + x, "peer": peer}
    return Case("claim/subject", "3", lambda _: torch.ones(3), sides, peers=("peer",), **more)


def fails(_):
    raise RuntimeError("cannot lower this\nand a long story")


@pytest.mark.parametrize(
    ("peer", "prepare", "reason"),
    [
        (fails, {}, "RuntimeError: cannot lower this"),
        (lambda x: x * 2, {"peer": fails}, "RuntimeError: cannot lower this"),
        (lambda x: x * 3, {}, "DisagreementError: peer"),
    ],
    ids=["work", "preparation", "disagreement"],
)
def test_a_peer_that_cannot_run_is_reported(peer, prepare, reason):
    result = measure(small_case(peer, prepare=prepare), CPU, QUICK)
    assert [side.name for side in result.sides] == ["textbook", "ours"]
    assert result.refused_peers["peer"].startswith(reason)
    assert "\n" not in result.refused_peers["peer"]
    results = Results({}, [result])
    assert f"| peer | not measured: {reason}" in table(results)
    assert results.peers_not_measured[0].startswith(f"not measured: claim/subject, peer: {reason}")


def test_a_peer_that_can_is_a_side():
    result = measure(small_case(lambda x: 2 * x), CPU, QUICK)
    assert [side.name for side in result.sides] == ["textbook", "ours", "peer"]
    assert result.refused_peers == {}


def test_each_side_prepares_a_problem_of_its_own():
    seen = []
    prepare = {"ours": lambda x: x.mul_(0) + 1}
    sides = {"textbook": lambda x: seen.append(x) or x, "ours": lambda x: seen.append(x) or x}
    case = Case("claim/one", "3", lambda _: torch.ones(3), sides, prepare=prepare)
    measure(case, CPU, QUICK)
    assert all(torch.equal(x, torch.ones(3)) for x in seen)


def test_what_is_compiled_has_the_allocators_count_alone():
    case = small_case(lambda x: x + x, compiled=("peer",), forward=lambda x: x @ x)
    result = measure(case, CPU, QUICK)
    ours, peer = result.sides[1:]
    assert (peer.peak_bytes, peer.operators) == (None, None)
    assert peer.allocator_peak_bytes == ours.allocator_peak_bytes
    assert result.memory_ratio(peer) is None
    assert "| peer |" in table(Results({}, [result]))
