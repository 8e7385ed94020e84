import math

import pytest
import torch
from torch import nn

from wgan_fast.models import MLPCritic, MLPGenerator


def test_generator_is_its_weights_applied_in_turn():
    generator = MLPGenerator(3, 2, hidden_dim=8, hidden_layers=2).double()
    z = torch.randn(5, 3, dtype=torch.float64)
    hidden = z
    linears = [layer for layer in generator.modules() if isinstance(layer, nn.Linear)]
    assert [(linear.in_features, linear.out_features) for linear in linears] == [
        (3, 8),
        (8, 8),
        (8, 2),
    ]
    for linear in linears[:-1]:
        hidden = (hidden @ linear.weight.T + linear.bias).clamp(min=0)
    expected = hidden @ linears[-1].weight.T + linears[-1].bias
    torch.testing.assert_close(generator(z), expected)


def test_critic_scores_each_sample_and_flattens():
    critic = MLPCritic(12, hidden_dim=8)
    flat = torch.randn(5, 12)
    assert critic(flat).shape == (5,)
    torch.testing.assert_close(critic(flat.reshape(5, 3, 2, 2)), critic(flat))
    assert sum(isinstance(layer, nn.Linear) for layer in critic.modules()) == 4


def test_every_parameter_gets_a_gradient():
    generator, critic = MLPGenerator(3, 2, 16), MLPCritic(2, 16)
    critic(generator(torch.randn(64, 3))).square().sum().backward()
    for name, parameter in [*generator.named_parameters(), *critic.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_initialisation_is_he_then_glorot():
    linears = [m for m in MLPCritic(2, 512).modules() if isinstance(m, nn.Linear)]
    hidden, last = linears[1].weight, linears[-1].weight
    # A uniform distribution on [-b, b] has standard deviation b / √3.
    assert hidden.abs().max() <= math.sqrt(6 / 512)
    assert hidden.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.02)
    assert last.abs().max() <= math.sqrt(6 / 513)
    assert last.std().item() == pytest.approx(math.sqrt(2 / 513), rel=0.2)
    assert not any(linear.bias.any() for linear in linears)


@pytest.mark.parametrize("network", [MLPGenerator, MLPCritic])
def test_bad_sizes_name_the_argument(network):
    good = {"latent_dim": 2, "out_features": 2} if network is MLPGenerator else {"in_features": 2}
    for name in [*good, "hidden_dim", "hidden_layers"]:
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            network(**{**good, name: 0})
        with pytest.raises(TypeError, match=f"{name}: expected an int, got '2'"):
            network(**{**good, name: "2"})


def test_bad_inputs_name_the_shape():
    with pytest.raises(ValueError, match=r"z: expected shape \(B, 2\), got \(4, 3\)"):
        MLPGenerator(2, 2)(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"samples, flattened: expected shape \(B, 2\)"):
        MLPCritic(2)(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"samples: expected a batch .*got \(2,\)"):
        MLPCritic(2)(torch.zeros(2))
