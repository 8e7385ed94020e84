"""Peak memory: exact on programs whose bytes can be counted by hand."""

import gc

import pytest
import torch
from torch import nn

import wgan_fast
from bench.harness.allocator import allocator_peak_bytes
from bench.harness.memory import count, peak_bytes
from wgan_fast import reference
from wgan_fast.models import MLPCritic

K = 4000  # bytes of ones(1000)


def ones(n=1000):
    return torch.ones(n)


def peak(run):
    return count(run).peak_bytes


def test_a_result_and_a_freed_temporary():
    def run():
        a = ones()
        b = a + 1
        del b
        return a * 2

    assert peak(run) == 2 * K
    assert count(run).kept_bytes == K


def test_all_alive_at_one_time():
    assert peak(lambda: [ones() for _ in range(5)]) == 5 * K


def test_addresses_that_are_used_again_count_each_time():
    def run():
        for _ in range(10):
            ones()
        return ones(), ones(500)

    assert peak(run) == K + 2000


def test_views_and_in_place_share_their_storage():
    def run():
        a = ones()
        b = a.view(10, 100)[2:].t()
        b.mul_(3)
        a.add_(1).expand(7, 1000)
        return b

    assert peak(run) == K
    assert count(run).kept_bytes == K, "the view keeps the whole storage"


def test_what_was_there_before_does_not_count():
    outside = [ones(), ones()]

    def run():
        outside[0].view(10, 100).add_(1)
        torch.add(outside[0], outside[1], out=outside[1])
        outside.pop()
        return ones(10)

    assert peak(run) == 40


def test_growth_counts():
    assert peak(lambda: ones(10).resize_(1000)) == K
    outside = ones(10)
    assert peak(lambda: outside.resize_(1000)) == K - 40


def test_tensors_made_from_python_numbers():
    assert peak(lambda: torch.tensor([1.0, 2.0, 3.0])) == 12


def test_several_outputs():
    assert peak(lambda: ones().max(dim=0)) == K + 4 + 8
    assert peak(lambda: ones().split(100)) == K


def test_a_graph_keeps_what_it_saves():
    x = ones().requires_grad_()

    def forward():
        y = x.exp()  # saved by exp, and by sin
        z = y.sin()
        return z.sum()

    assert peak(forward) == 2 * K + 4
    assert count(forward).kept_bytes == K + 4, "z is freed, y belongs to the graph"


def test_a_backward_frees_as_it_goes():
    x = ones().requires_grad_()

    def step():
        x.exp().sin().sum().backward()
        return x.grad

    # At cos(y) * 1: y, the loss, its gradient, cos(y) and the product; then cos(y) makes room for
    # the product's own product with y.
    assert peak(step) == 3 * K + 8
    assert x.grad is not None
    x.grad = None
    counted = count(step)
    assert counted.kept_bytes == K
    assert x.grad.untyped_storage().nbytes() == K, "the gradient is taken over, not copied"


def test_double_backward():
    x = ones().requires_grad_()

    def run():
        (first,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        first.sum().backward()

    counted = count(run)
    x.grad = None
    assert counted.kept_bytes == K
    assert counted.peak_bytes == allocator_peak_bytes(run)


def test_a_cycle_counts_until_it_is_collected():
    def run():
        cycle = [ones()]
        cycle.append(cycle)
        del cycle
        return ones()

    assert peak(run) == 2 * K
    assert gc.isenabled()


def test_gradients_disabled_and_inference_mode():
    for mode in (torch.no_grad, torch.inference_mode):

        def run(mode=mode):
            with mode():
                return ones() + 1

        assert peak(run) == 2 * K


def test_operators_are_counted_by_name():
    counted = count(lambda: wgan_fast.interpolate(torch.ones(2, 3), torch.zeros(2, 3), ones(2)))
    assert counted.operators["wgan_fast::interpolate"] == 1
    assert counted.operators["aten::ones"] == 2
    assert counted.operators["aten::zeros"] == 1
    parameters = nn.Linear(3, 3)
    clip = count(lambda: wgan_fast.clip_weights_(parameters, 0.01))
    assert clip.operators == {"wgan_fast::clip_weights_": 1}


def test_a_critic_step_agrees_with_the_allocator():
    # Two counts that share nothing, on a double backward; linear layers use nothing inside.
    critic = MLPCritic(20, 64, 3)
    real, fake, alpha = torch.rand(32, 20), torch.rand(32, 20), torch.rand(32)

    def step():
        reference.critic_loss(critic, real, fake, alpha).backward()
        critic.zero_grad()

    step()
    assert count(step).peak_bytes == allocator_peak_bytes(step) > 0
    assert count(step).kept_bytes == 0


def test_the_allocator_sees_inside_an_operator():
    # In float64 a convolution unfolds its input.
    images = torch.rand(2, 4, 8, 8, dtype=torch.float64)
    weight = torch.rand(5, 4, 3, 3, dtype=torch.float64)
    columns, output = 2 * (4 * 3 * 3) * (6 * 6) * 8, 2 * 5 * (6 * 6) * 8

    def run():
        return torch.conv2d(images, weight)

    assert peak_bytes(run, torch.device("cpu")) == output
    assert allocator_peak_bytes(run) == columns + output


@pytest.mark.cuda
def test_peak_on_a_device():
    def run():
        a = torch.ones(2**20, device="cuda")
        b = a + 1
        del a
        return b * 2

    run()
    assert peak_bytes(run, torch.device("cuda")) == 2 * 4 * 2**20
