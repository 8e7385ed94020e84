"""Floating point operations: those of programs that can be counted by hand."""

import pytest
import torch
from torch import nn

import wgan_fast
from bench.harness.flops import count_flops, gemm_seconds
from bench.harness.interleave import wall_clock
from wgan_fast import reference

B, HIDDEN = 6, 64


def product(rows, inner, columns):
    return 2 * rows * inner * columns


def test_products_and_convolutions_count_and_nothing_else():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert count_flops(lambda: (a + 1).exp() @ b) == product(3, 4, 5)
    images, weight = torch.ones(2, 3, 8, 8), torch.ones(5, 3, 4, 4)
    expected = product(2 * 4 * 4, 3 * 4 * 4, 5)
    assert count_flops(lambda: torch.conv2d(images, weight, stride=2, padding=1)) == expected


def test_own_products_and_convolutions_count_as_pytorchs():
    images, weight, delta = (
        torch.randn(shape) for shape in ((3, 5, 8, 8), (7, 5, 4, 4), (3, 7, 4, 4))
    )
    theirs = count_flops(lambda: torch.conv2d(images, weight, None, 2, 1))
    ops = torch.ops.wgan_fast
    assert theirs == 2 * 3 * 7 * 16 * 5 * 16
    assert count_flops(lambda: ops.winograd_gather(images, weight, None, [1, 1])) == theirs
    assert count_flops(lambda: ops.winograd_spread(delta, weight, [8, 8], [1, 1])) == theirs
    assert count_flops(lambda: ops.winograd_weight(delta, images, [1, 1])) == theirs
    a, b = torch.randn(20, 30), torch.randn(30, 40)
    assert count_flops(lambda: ops.product(a, b)) == count_flops(lambda: a @ b)


def test_an_operator_that_arrives_whole_is_taken_apart():
    x, weight = torch.ones(3, 4), torch.ones(5, 4)
    with torch.inference_mode():
        assert count_flops(lambda: torch.nn.functional.linear(x, weight)) == product(3, 4, 5)
        assert count_flops(lambda: torch.ops.aten.linear.default(x, weight)) == product(3, 4, 5)
        assert count_flops(lambda: torch.matmul(x, weight.t())) == product(3, 4, 5)


# All layers are of one size, but for the last one, which is too small to matter.
def mlp():
    layers = [module for _ in range(4) for module in (nn.Linear(HIDDEN, HIDDEN), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(HIDDEN, 1)), torch.rand(2, B, HIDDEN), 4


def convolutions():
    layers = [
        module for _ in range(3) for module in (nn.Conv2d(4, 4, 3, padding=1), nn.LeakyReLU(0.2))
    ]
    head = nn.Flatten(), nn.Linear(4 * 6 * 6, 1)
    return nn.Sequential(*layers, *head), torch.rand(2, B, 4, 6, 6), 3


@pytest.mark.parametrize("make", [mlp, convolutions])
def test_a_step_takes_what_docs_explicit_says(make):
    critic, (real, fake), layers = make()
    alpha = torch.rand(B)
    with torch.no_grad():
        forward = count_flops(lambda: critic(real))
    # Nobody needs the input gradient of the first layer where nothing is penalised: fake and real.
    saved = 2 / layers

    def forwards(loss):
        def step():
            loss().backward()
            critic.zero_grad()

        step()  # the first one proves that samples are independent
        return count_flops(step) / forward

    penalty = {
        "explicit": lambda: wgan_fast.gradient_penalty(critic, real, fake, alpha=alpha),
        "textbook": lambda: reference.gradient_penalty(critic, real, fake, alpha),
    }
    loss = {
        "explicit": lambda: wgan_fast.critic_loss(critic, real, fake, alpha=alpha),
        "textbook": lambda: reference.critic_loss(critic, real, fake, alpha),
    }
    assert forwards(penalty["explicit"]) == pytest.approx(4, rel=0.01)
    assert forwards(penalty["textbook"]) == pytest.approx(6, rel=0.01)
    assert forwards(loss["explicit"]) == pytest.approx(10 - saved, rel=0.01)
    assert forwards(loss["textbook"]) == pytest.approx(12 - saved, rel=0.01)


def test_a_large_product_is_timed():
    assert all(seconds > 0 for seconds in gemm_seconds(torch.device("cpu"), wall_clock))
