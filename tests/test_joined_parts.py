"""What the extension makes of a graph's parts: means of the results, or their rows in order."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_fast.flat_graph import trace
from wgan_fast.ops.registration import EXTENSION_MISSING
from wgan_fast.replay import mean_of

pytestmark = [
    pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here"),
    pytest.mark.usefixtures("two_threads"),
]


def joined(function, parts, rows=()):
    graph = trace(lambda x: function(x), [], [parts[0]])
    means = graph.mean([whole_of(parts)], len(parts), list(rows))
    return means, [function(part) for part in parts]


def whole_of(parts):
    return torch.cat(parts)


def results(x):
    total = x.sum(0)
    return [total, total, x.t() @ x, None, x.sum(1), x[:1].expand(3, -1), x.mean(), x.t().clone()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_means_and_rows(dtype, count):
    parts = list(torch.randn(count, 5, 400, dtype=dtype))
    before = [part.clone() for part in parts]
    means, each = joined(results, parts, rows=[4])
    for place, mean in enumerate(means):
        found = [one[place] for one in each]
        if place == 3:
            assert mean is None
        elif place == 4:
            torch.testing.assert_close(mean, torch.cat(found))
        else:
            torch.testing.assert_close(mean, torch.stack(found).double().mean(0).to(dtype))
    assert all(map(torch.equal, parts, before))


def test_means_of_what_python_computes_are_no_concern_of_autograds():
    weight = torch.randn(5, 4, requires_grad=True)
    (mean,) = mean_of(lambda x: [weight], [], [torch.randn(4, 2)], 2, [])
    assert not mean.requires_grad
    torch.testing.assert_close(mean, weight.detach())


def test_means_of_views_are_taken_in_their_own_memory():
    """A weight's gradient is the transpose of a product; a mean of copies takes three times as
    long."""
    parts = list(torch.randn(2, 5, 400))
    graph = trace(lambda x: [(x.t() @ x).t(), x.exp().view(-1)], [], [parts[0]])
    with torch.profiler.profile() as profile:
        means = graph.mean([whole_of(parts)], 2, [])
    assert {"aten::mm", "aten::exp"} <= (ran := {event.name for event in profile.events()})
    assert "aten::stack" not in ran
    torch.testing.assert_close(means[1], torch.stack(parts).exp().mean(0).view(-1))


def test_an_input_among_the_results_is_not_written():
    parts = list(torch.randn(2, 5, 4))
    before = [part.clone() for part in parts]
    (mean, _), _ = joined(lambda x: [x, x + 1], parts)
    assert all(map(torch.equal, parts, before))
    torch.testing.assert_close(mean, torch.stack(before).mean(0))


def test_errors_reach_the_caller():
    graph = trace(lambda x: [x @ x.t()], [], [torch.randn(5, 4)])
    with pytest.raises(RuntimeError, match="but self is 3D"):
        graph.mean([torch.randn(10, 4, 3)], 2, [])
    with pytest.raises(TypeError, match="expected 1 tensors, got 2"):
        graph.mean([torch.randn(10, 4)] * 2, 2, [])
    with pytest.raises(RuntimeError, match="expected a positive number of parts, got 0"):
        graph.mean([torch.randn(10, 4)], 0, [])
    with pytest.raises(RuntimeError, match="expected 2 equal parts of every tensor, got one of 11"):
        graph.mean([torch.randn(11, 4)], 2, [])


def test_modes_see_every_part():
    graph = trace(lambda x: [x.sin() + 1], [], [torch.randn(5, 4)])
    seen = []

    class Seeing(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            seen.append(op)
            return op(*args, **(kwargs or {}))

    parts = list(torch.randn(2, 5, 4))
    with Seeing():
        (mean,) = graph.mean([whole_of(parts)], 2, [])
    aten = torch.ops.aten
    computed = [op for op in seen if op in (aten.sin.default, aten.add.Tensor)]
    assert computed == [aten.sin.default] * 2 + [aten.add.Tensor] * 2
    torch.testing.assert_close(mean, (torch.stack(parts).sin() + 1).mean(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_means_have_the_strides_of_their_parts(dtype):
    there = torch.channels_last
    parts = [torch.randn(4, 3, 5, 5, dtype=dtype).to(memory_format=there) for _ in range(2)]
    means, _ = joined(lambda x: [x * 2, x.sin(), x], parts)
    for mean in means:
        assert mean.stride() == parts[0].stride()
        assert mean.is_contiguous(memory_format=there)
