"""Critics whose slope is bounded by what they are: by construction, or by spectral norm."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wgan_fast
from wgan_fast import reference
from wgan_fast.models import (
    DCGANCritic,
    GroupSort,
    GroupSortConvCritic,
    GroupSortMLPCritic,
    MLPCritic,
    OrthogonalConv2d,
    orthogonal_linear,
)

SIDE = 8


def mlp():
    return GroupSortMLPCritic(5, 8, hidden_layers=2).double(), (6, 5)


def wide_groups():
    return GroupSortMLPCritic(5, 12, hidden_layers=2, group_size=4).double(), (6, 5)


def images():
    return GroupSortConvCritic(16, channels=4, image_channels=1).double(), (6, 1, 16, 16)


def colour():
    return GroupSortConvCritic(28, channels=6, group_size=3).double(), (3, 3, 28, 28)


BY_CONSTRUCTION = [mlp, wide_groups, images, colour]


def trained(critic, shape):
    """Parameters as after a wild training: anything."""
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(3 * torch.randn_like(parameter))
    return critic, torch.randn(shape, dtype=torch.float64)


def slopes(critic, x):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x)
    return gradient.flatten(1).norm(dim=1)


# -- GroupSort -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 12), (3, 12, 5), (2, 12, 3, 4)])
@pytest.mark.parametrize("group_size", [1, 2, 3, 12])
def test_groupsort_sorts_within_groups(shape, group_size):
    features = torch.randn(shape)
    result = GroupSort(group_size)(features)
    for sample, sorted_sample in zip(features.movedim(1, -1), result.movedim(1, -1), strict=True):
        for numbers, ours in zip(
            sample.reshape(-1, 12), sorted_sample.reshape(-1, 12), strict=True
        ):
            expected = [sorted(group.tolist()) for group in numbers.split(group_size)]
            assert ours.tolist() == [number for group in expected for number in group]


@pytest.mark.parametrize("group_size", [2, 3])
def test_groupsort_keeps_the_norm_of_a_gradient(group_size):
    features = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    incoming = torch.randn(4, 6, 3, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(GroupSort(group_size)(features), features, incoming)
    torch.testing.assert_close(gradient.norm(), incoming.norm())
    assert torch.autograd.gradgradcheck(GroupSort(group_size), (features,))


def test_groupsort_arguments():
    with pytest.raises(ValueError, match="group_size: expected at least 1, got 0"):
        GroupSort(0)
    with pytest.raises(ValueError, match=r"C a multiple of 2, got \(3, 5\)"):
        GroupSort()(torch.zeros(3, 5))


# -- orthogonal weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(3, 7), (7, 3), (5, 5), (1, 4), (4, 1)])
def test_weights_are_orthogonal_whatever_the_parameters(rows, columns):
    linear, _ = trained(orthogonal_linear(columns, rows).double(), (1,))
    weight = linear.weight if rows >= columns else linear.weight.mT
    identity = torch.eye(min(rows, columns), dtype=torch.float64)
    torch.testing.assert_close(weight.mT @ weight, identity)
    free = linear.parametrizations.weight.original.detach()
    free = free if rows >= columns else free.mT
    # Gram and Schmidt, one column after the other.
    columns_found = []
    for column in free.unbind(1):
        for before in columns_found:
            column = column - (column @ before) * before
        columns_found.append(column / column.norm())
    torch.testing.assert_close(weight, torch.stack(columns_found, 1))


def test_weights_start_where_they_are_drawn_and_move_without_a_jump():
    linear = orthogonal_linear(4, 4).double()
    free = linear.parametrizations.weight.original
    torch.testing.assert_close(linear.weight.abs(), free.abs(), rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        # Where the first number changes its sign, LAPACK's own Q jumps.
        free.copy_(torch.eye(4) + 0.1 * torch.randn(4, 4))
        seen = []
        for corner in (1e-12, -1e-12):
            free[0, 0] = corner
            seen.append(linear.weight.clone())
    torch.testing.assert_close(*seen, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), (4, 2, 1), (3, 1, 1), (5, 3, 2)]
)
def test_convolutions_stretch_nothing(kernel, stride, padding):
    layer = OrthogonalConv2d(2, 3, kernel, stride=stride, padding=padding).double()
    layer, _ = trained(layer, (1,))
    zero = torch.zeros(1, 2, SIDE, SIDE, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, zero)
    norm = torch.linalg.matrix_norm(jacobian.reshape(-1, zero.numel()), 2)
    assert norm <= 1 + 1e-12
    if kernel == stride:  # the bound is met
        torch.testing.assert_close(norm, torch.ones_like(norm))
    features = torch.randn(4, 2, SIDE, SIDE, dtype=torch.float64)
    weight = layer.flat.weight.reshape(3, 2, kernel, kernel) / -(-kernel // stride)
    expected = F.conv2d(features, weight, layer.flat.bias, stride, padding)
    torch.testing.assert_close(layer(features), expected)


def test_bad_arguments_name_themselves():
    with pytest.raises(ValueError, match="stride: expected at most kernel_size=2, got 3"):
        OrthogonalConv2d(1, 1, 2, stride=3)
    with pytest.raises(ValueError, match="hidden_dim: expected a multiple of group_size=2, got 7"):
        GroupSortMLPCritic(2, 7)
    with pytest.raises(ValueError, match="channels: expected a multiple of group_size=3, got 4"):
        GroupSortConvCritic(16, channels=4, group_size=3)
    with pytest.raises(ValueError, match="image_size: expected one of"):
        GroupSortConvCritic(20)
    with pytest.raises(ValueError, match=r"images: expected shape \(B, 3, 16, 16\)"):
        GroupSortConvCritic(16, channels=4)(torch.zeros(2, 1, 16, 16))
    with pytest.raises(ValueError, match=r"samples, flattened: expected shape \(B, 2\)"):
        GroupSortMLPCritic(2, 4)(torch.zeros(2, 3))


# -- critics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", BY_CONSTRUCTION)
def test_no_slope_is_above_one(make):
    for _ in range(3):
        critic, x = trained(*make())
        found = slopes(critic, 2 * x)
        assert found.shape == x.shape[:1]
        assert found.max() <= 1 + 1e-12
        assert found.min() > 0.05
        other = x + torch.randn_like(x)
        distance = (x - other).flatten(1).norm(dim=1)
        assert ((critic(x) - critic(other)).abs() <= distance * (1 + 1e-12)).all()


def test_no_slope_is_lost_where_no_layer_widens():
    critic, x = trained(GroupSortMLPCritic(8, 6, hidden_layers=3).double(), (7, 8))
    torch.testing.assert_close(slopes(critic, x), torch.ones(7, dtype=torch.float64))


def test_spectral_critics():
    for plain, constrained, shape, bound in (
        (MLPCritic(3, 8).double(), MLPCritic(3, 8, lipschitz="spectral").double(), (9, 3), 1.0),
        (
            DCGANCritic(16, channels=4).double(),
            DCGANCritic(16, channels=4, lipschitz="spectral").double(),
            (5, 3, 16, 16),
            4.0,
        ),
    ):
        layers = [m for m in constrained.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        originals = [m for m in plain.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        assert len(layers) == len(originals)
        with torch.no_grad():
            for layer, original in zip(layers, originals, strict=True):
                layer.parametrizations.weight.original.copy_(original.weight)
        x = torch.randn(shape, dtype=torch.float64)
        for _ in range(500):  # one power iteration each
            constrained(x)
        for layer, original in zip(layers, originals, strict=True):
            sigma = torch.linalg.matrix_norm(original.weight.flatten(1), 2)
            torch.testing.assert_close(layer.weight, original.weight / sigma, rtol=1e-4, atol=1e-6)
        assert slopes(constrained.eval(), x).max() <= bound * 1.001
    with pytest.raises(ValueError, match="lipschitz: expected one of 'none', 'spectral', got 'sn'"):
        MLPCritic(2, lipschitz="sn")


# -- the engine ------------------------------------------------------------------------------------


def torchs_own(orthogonal_map):
    """GroupSort between layers of PyTorch's parametrisation: square, tall and wide."""
    sizes = [(3, 4), (4, 4), (4, 1)]
    layers = []
    for size in sizes:
        linear = nn.Linear(*size)
        layers += [
            torch.nn.utils.parametrizations.orthogonal(linear, orthogonal_map=orthogonal_map),
            GroupSort(),
        ]
    return nn.Sequential(*layers[:-1]).double(), (5, 3)


CRITICS = {
    **{make.__name__: make for make in BY_CONSTRUCTION},
    "matrix_exp": lambda: torchs_own("matrix_exp"),
    "cayley": lambda: torchs_own("cayley"),
    "householder": lambda: torchs_own("householder"),
    "spectral": lambda: (MLPCritic(5, 8, lipschitz="spectral").double().eval(), (6, 5)),
    "spectral images": lambda: (
        DCGANCritic(16, channels=2, lipschitz="spectral").double().eval(),
        (3, 3, 16, 16),
    ),
}


@pytest.mark.parametrize("name", CRITICS)
def test_explicit_and_frozen_equal_autograd(name):
    critic, shape = CRITICS[name]()
    twin = copy.deepcopy(critic)
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    alpha = torch.rand(shape[0], dtype=torch.float64)
    expected = reference.critic_loss(twin, real, fake, alpha, weight=3.0)
    wanted = torch.autograd.grad(expected, list(twin.parameters()), allow_unused=True)
    loss = wgan_fast.critic_loss(critic, real, fake, alpha=alpha, weight=3.0, backend="explicit")
    found = torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True)
    frozen, by_name = wgan_fast.freeze(critic, real, weight=3.0).value_and_grad(real, fake, alpha)
    scale = max(gradient.abs().max() for gradient in wanted if gradient is not None)
    for value, gradients in ((loss.detach(), found), (frozen, by_name.values())):
        torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(gradients, wanted, strict=True):
            zero = torch.zeros((), dtype=torch.float64)
            ours, theirs = (zero if g is None else g for g in (ours, theirs))
            assert (ours - theirs).abs().max() <= 1e-11 * scale


def test_real_fake_and_interpolates_are_one_batch():
    calls = []
    critic, shape = images()
    critic.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    for _ in range(2):
        calls.clear()
        wgan_fast.critic_loss(critic, real, fake, backend="explicit")
    assert calls == [3 * shape[0]]
