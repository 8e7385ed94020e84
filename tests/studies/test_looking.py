"""What the studies read off networks, against plain autograd and against known cases."""

import pytest
import torch
from torch import nn

from wgan_fast.models import DCGANCritic, MLPCritic
from wgan_fast.studies import gradient_norms, weights
from wgan_fast.studies.clip_value import gradients_by_layer
from wgan_fast.studies.normalisation import own_and_total_gradients


def test_gradients_by_layer_of_known_layers():
    # Positive weights and samples keep every ReLU open: the gradient is a product of matrices.
    critic = MLPCritic(2, 3, 2)
    for parameter in critic.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    real, fake = torch.rand(2, 4, 2)
    second, last = (critic.layers[place].weight.double() for place in (2, 4))
    # L = mean f(fake) − mean f(real): ±1/4 for each of 8 rows.
    at_second = last.norm() * (8 / 16) ** 0.5
    at_first = (last @ second).norm() * (8 / 16) ** 0.5
    expected = torch.stack([at_first, at_second]).detach()
    torch.testing.assert_close(gradients_by_layer(critic, real, fake), expected)
    assert next(critic.parameters()).dtype == torch.float32


@pytest.mark.parametrize("normalisation", ["none", "layer", "batch"])
def test_own_and_total_gradients(normalisation):
    critic = DCGANCritic(16, channels=2, image_channels=1, normalisation=normalisation).double()
    points = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    buffers = {name: buffer.clone() for name, buffer in critic.named_buffers()}
    own, total = own_and_total_gradients(critic, points)
    for name, buffer in critic.named_buffers():
        assert torch.equal(buffer, buffers[name]), name

    jacobian = torch.autograd.functional.jacobian(critic, points).flatten(2)
    torch.testing.assert_close(own, torch.stack([jacobian[i, i] for i in range(3)]))
    torch.testing.assert_close(total, jacobian.sum(0))
    apart = (own - total).abs().max() <= 1e-12 * own.abs().max()
    assert apart == (normalisation != "batch")


def test_norms_are_counted_where_they_belong():
    edges = torch.logspace(-1, 1, 3, dtype=torch.float64).tolist()
    seen = gradient_norms.NormsOverTraining([], edges, [], [], [], [])
    gradient_norms._record(seen, 7, torch.tensor([1e-9, 0.5, 2.0, 4.0, 1e9]))
    assert seen.steps == [7]
    assert seen.shares == [[pytest.approx(0.4), pytest.approx(0.6)]]
    assert (seen.lower_quartile, seen.median, seen.upper_quartile) == ([0.5], [2.0], [4.0])


def test_weights_start_within_the_box_and_spread():
    critic = MLPCritic(2, 64, 2)
    weights.into_the_box(nn.Identity(), critic)
    for weight in weights._matrices(critic):
        assert weight.abs().max().item() == pytest.approx(0.01, rel=1e-6)
    everything = weights._hidden_weights(critic)
    assert len(everything) == 64 * 64
    summary = weights.summarise(everything, everything, 0.01)
    assert summary.outermost_before == pytest.approx(0.05, abs=0.02)


def test_histograms_of_weights():
    before = torch.tensor([0.0, 0.5, -0.5, 3.0]).double()
    after = torch.tensor([1.0, -1.0, 1.0, 0.0]).float().double()
    summary = weights.summarise(before, after, None)
    assert summary.reach == 1
    assert sum(summary.before) == pytest.approx(0.75)  # 3 lies outside
    assert sum(summary.after) == pytest.approx(1)
    assert (summary.after[0], summary.after[-1]) == (pytest.approx(0.25), pytest.approx(0.5))
    assert (summary.outermost_before, summary.outermost_after) == (0.25, 0.75)
