"""Critics of every shape against their penalties written out by hand in autograd."""

import pytest
import torch

import wgan_fast
from tests.critic_shapes import CASES, B, textbook
from tests.double_backward.oracle import error, gradients


def alpha_of(case):
    return torch.rand(B // case.pac, dtype=torch.float64)


def distances(theirs, critic):
    """How far losses are from ``theirs``, in value and in the gradient of every parameter."""
    expected = gradients(theirs, critic)

    def distance(ours):
        off = abs(ours - theirs).item() / max(abs(theirs).item(), 1.0)
        return max(off, error(gradients(ours, critic), expected))

    return distance


@pytest.mark.parametrize("backend", ["explicit", "autograd", "first_order"])
@pytest.mark.parametrize("name", CASES)
def test_gradient_penalty(name, backend):
    if (name, backend) == ("piecewise_linear", "first_order"):
        pytest.skip("central differences are for smooth critics")
    case = CASES[name]()
    alpha = alpha_of(case)
    ours = wgan_fast.gradient_penalty(
        case.critic, case.real, case.fake, alpha=alpha, backend=backend, **case.options
    )
    tolerance = 1e-6 if backend == "first_order" else 1e-10
    assert distances(textbook(case, alpha)[0], case.critic)(ours) < tolerance


@pytest.mark.parametrize("at", ["mix", "real", "both"])
@pytest.mark.parametrize("name", CASES)
def test_critic_loss(name, at):
    case = CASES[name]()
    drawn = alpha_of(case)
    distance = distances(textbook(case, drawn, at)[1], case.critic)

    def ours(backend, **more):
        return wgan_fast.critic_loss(
            case.critic, case.real, case.fake, alpha=drawn if at == "mix" else None, at=at,
            weight=3.0, backend=backend, **case.options, **more,
        )  # fmt: skip

    assert distance(ours("explicit")) < 1e-10
    case.critic.batches.clear()
    assert distance(ours("auto")) < 1e-10
    parts = 3 if at == "mix" else 2
    twice = at != "mix" and name.startswith("multi_scale")
    # A scale's scores enter the loss and the penalty with other weights; their samples part.
    apart = [(4 if at == "both" else 3) * B] if twice else []
    assert case.critic.batches == [parts * B, *apart]
    chunk_size = 2 * case.pac
    assert distance(ours("explicit", chunk_size=chunk_size)) < 1e-10
    assert distance(ours("autograd")) < 1e-10
