"""Orthogonal regularisation against sums that are written out, in float64."""

import pytest
import torch
from torch import nn

from wgan_fast import orthogonal_regularisation
from wgan_fast.models import DCGANCritic, MLPCritic


def written_out(weights, form):
    """Every pair of filters on its own."""
    total = 0.0
    for weight in weights:
        filters = weight.reshape(len(weight), -1)
        for i, one in enumerate(filters):
            for j, other in enumerate(filters):
                product = (one * other).sum()
                if i != j:
                    total = total + product**2
                elif form == "identity":
                    total = total + (product - 1) ** 2
    return total


@pytest.mark.parametrize("form", ["identity", "off-diagonal"])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 2, 3), (3, 2, 2, 2), (1, 4)])
def test_value_and_gradient(shape, form):
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ours = orthogonal_regularisation([weight], 0.3, form=form)
    expected = 0.3 * written_out([weight], form)
    if shape[0] == 1 and form == "off-diagonal":
        assert ours == 0
        return
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, weight)[0] for value in (ours, expected))
    )
    assert torch.autograd.gradgradcheck(
        lambda w: orthogonal_regularisation(w, form=form, weight=1.0), weight
    )


@pytest.mark.parametrize(
    "critic", [MLPCritic(3, 4), DCGANCritic(16, channels=2, normalisation="layer")]
)
def test_a_modules_weights_are_taken_and_its_vectors_are_not(critic):
    critic = critic.double()
    weights = [m.weight for m in critic.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    ours = orthogonal_regularisation(critic, 1.0)
    torch.testing.assert_close(ours, written_out(weights, "identity"), rtol=1e-10, atol=0)
    ours.backward()
    touched = {id(p) for p in critic.parameters() if p.grad is not None}
    assert touched == {id(weight) for weight in weights}


def test_orthogonal_rows_cost_nothing_and_orthogonal_columns_the_least():
    wide = nn.init.orthogonal_(torch.empty(3, 7, dtype=torch.float64))
    assert orthogonal_regularisation(wide, 1.0) < 1e-24
    tall = wide.mT.clone().requires_grad_()
    value = orthogonal_regularisation(tall, 1.0)
    torch.testing.assert_close(value, torch.full((), 4.0, dtype=torch.float64))
    assert torch.autograd.grad(value, tall)[0].abs().max() < 1e-12


def test_off_diagonal_leaves_lengths_alone():
    wide = nn.init.orthogonal_(torch.empty(3, 7, dtype=torch.float64))
    lengths = torch.tensor([[0.1], [2.0], [30.0]], dtype=torch.float64)
    assert orthogonal_regularisation(lengths * wide, 1.0, form="off-diagonal") < 1e-20


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    weight = torch.randn(40, 50).to(dtype)
    ours = orthogonal_regularisation(weight, 1.0)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(
        ours.double(), orthogonal_regularisation(weight.double(), 1.0), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize(
    ("given", "options", "kind", "words"),
    [
        (3, {}, TypeError, "module_or_parameters: expected an nn.Module, a tensor or an iterable"),
        ([torch.ones(2, 2, dtype=torch.int64)], {}, TypeError, "module_or_parameters: "),
        (
            [torch.ones(2, 2), torch.ones(3)],
            {},
            ValueError,
            r"weights of rank ≥ 2, got one of \(3,",
        ),
        (nn.LayerNorm(3), {}, ValueError, "a weight of rank ≥ 2, found none"),
        (torch.ones(2, 2), {"form": "soft"}, ValueError, "form: "),
        (torch.ones(2, 2), {"weight": "1"}, TypeError, "weight: "),
    ],
)
def test_bad_arguments_name_themselves(given, options, kind, words):
    with pytest.raises(kind, match=words):
        orthogonal_regularisation(given, **options)
