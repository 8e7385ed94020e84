"""The first product at the interpolates, mixed of those at the real and fake samples."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_fast
from tests.conftest import SEED
from tests.double_backward.critics import Apply
from tests.double_backward.oracle import (
    errors_of,
    loss_error,
    samples,
)
from wgan_fast.double_backward import first_layer

BATCH, FEATURES = 6, 12
aten = torch.ops.aten


class Products(TorchDispatchMode):
    """The numbers of rows of products of matrices, one after the other."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op in (aten.linear.default, aten.mm.default, aten.addmm.default):
            self.rows.append(args[1 if op is aten.addmm.default else 0].shape[0])
        return op(*args, **(kwargs or {}))


@pytest.fixture
def always(monkeypatch):
    """Small products are mixed as well."""
    monkeypatch.setattr(first_layer, "_DEEP", 1)
    monkeypatch.setattr(first_layer, "_LARGE", 1)


def first_product(critic, shape):
    """Of how many samples the first product is; merged batches have three times the batch."""
    real, fake, alpha = samples(shape)
    with Products() as seen:
        wgan_fast.critic_loss(critic, real, fake, alpha=alpha, backend="explicit")
    return seen.rows[0]


def tail(width):
    return [nn.LeakyReLU(0.2), nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, 1)]


def mlp(*first):
    return nn.Sequential(*first, *tail(7)).double()


def by_rows(parts, x):
    """A product over the last axis of sequences, then all of them."""
    return parts[1](parts[0](x).flatten(1))


def scaled_addmm(parts, x):
    return parts[1](torch.addmm(parts[0].bias, x, parts[0].weight.t(), beta=0.5, alpha=2.0))


def twice(parts, x):
    return parts[1](parts[0](x) * parts[0](x.view(-1, FEATURES)).sigmoid())


MIXED = {
    "linear": (mlp(nn.Linear(FEATURES, 7)), (BATCH, FEATURES)),
    "without a bias": (mlp(nn.Linear(FEATURES, 7, bias=False)), (BATCH, FEATURES)),
    "images laid flat": (mlp(nn.Flatten(), nn.Linear(12, 7)), (BATCH, 3, 2, 2)),
    "spectral norm": (
        mlp(nn.utils.parametrizations.spectral_norm(nn.Linear(FEATURES, 7))).eval(),
        (BATCH, FEATURES),
    ),
    "addmm's own factors": (
        Apply(scaled_addmm, nn.Linear(FEATURES, 7), nn.Sequential(*tail(7))).double(),
        (BATCH, FEATURES),
    ),
    "two first layers": (
        Apply(twice, nn.Linear(FEATURES, 7), nn.Sequential(*tail(7))).double(),
        (BATCH, FEATURES),
    ),
    "two samples": (mlp(nn.Linear(FEATURES, 7)), (2, FEATURES)),
    "one sample": (mlp(nn.Linear(FEATURES, 7)), (1, FEATURES)),
}


@pytest.mark.parametrize("name", MIXED)
def test_same_numbers_of_two_thirds_of_the_rows(name, always):
    critic, shape = MIXED[name]
    assert loss_error(critic, shape, "explicit") < 1e-10
    assert loss_error(critic, shape, "explicit", weight=3.0) < 1e-10
    assert first_product(critic, shape) == 2 * shape[0]


def moved(parts, x):
    return parts[1](parts[0](2 * x - x.square()))


def written(parts, x):
    x = x.clone()
    x.tanh_()
    return parts[1](parts[0](x))


def per_sample_bias(parts, x):
    return parts[1](torch.addmm(x[:, :7], x, parts[0].weight.t()))


def behind_another(parts, x):
    return parts[1](parts[0](x.view(-1, 6)).view(-1, 14))


OTHERS = {
    "of other numbers": (moved, 7, FEATURES, 3 * BATCH),
    "of numbers written over": (written, 7, FEATURES, 3 * BATCH),
    "a bias of the sample's own, in a call of its own": (per_sample_bias, 7, FEATURES, BATCH),
    "two rows per sample": (behind_another, 14, 6, 6 * BATCH),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_first_products_are_whole(name, always):
    forward, width, features, rows = OTHERS[name]
    critic = Apply(forward, nn.Linear(features, 7), nn.Sequential(*tail(width))).double()
    assert loss_error(critic, (BATCH, FEATURES), "explicit") < 1e-10
    assert first_product(critic, (BATCH, FEATURES)) == rows


@pytest.mark.parametrize("penalty", ["dragan", "r1", "r2"])
def test_points_that_are_no_mixes(penalty, always):
    critic, shape = MIXED["linear"]
    real, fake, _ = samples(shape)
    with Products() as seen:
        wgan_fast.critic_loss(critic, real, fake, penalty=penalty, backend="explicit")
    assert seen.rows[0] == (3 if penalty == "dragan" else 2) * BATCH


def test_sequences(always):
    critic = Apply(by_rows, nn.Linear(4, 3), nn.Sequential(*tail(15))).double()
    assert loss_error(critic, (BATCH, 5, 4), "explicit") < 1e-10


def test_labels_beside_the_samples(always):
    """Each interpolate has its own label's rows, in the sum as well as beside x."""
    embedded = nn.Embedding(4, 7).double()
    first = nn.Linear(FEATURES, 7).double()
    rest = nn.Sequential(*tail(7)).double()

    def critic(x, y):
        return rest(first(x) + embedded(y))

    real, fake, alpha = samples((BATCH, FEATURES))
    labels = torch.randint(4, (BATCH,))
    losses = [
        wgan_fast.critic_loss(critic, real, fake, alpha=alpha, cond=labels, backend=backend)
        for backend in ("explicit", "autograd")
    ]
    parameters = [*embedded.parameters(), *first.parameters(), *rest.parameters()]
    mine, expected = (torch.autograd.grad(loss, parameters) for loss in losses)
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_random_critics(always):
    compared = list(errors_of(range(SEED, SEED + 40)))
    assert len(compared) >= 30
    assert max(compared)[0] < 1e-10, max(compared)[1]


@pytest.mark.parametrize(("features", "samples_taken"), [(784, 2), (100, 3)])
def test_where_it_pays(features, samples_taken):
    critic = nn.Sequential(nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 1))
    real, fake = torch.randn(2, 64, features)
    with Products() as seen:
        wgan_fast.critic_loss(critic, real, fake, backend="explicit")
    assert seen.rows[0] == samples_taken * 64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_are_rounded_once(dtype, always):
    """Of a rounded result, no mix is made, nor under autocast."""
    critic = mlp(nn.Linear(FEATURES, 7)).float()
    real, fake = torch.randn(2, BATCH, FEATURES)
    with torch.autocast("cpu", dtype), Products() as seen:
        wgan_fast.critic_loss(critic, real, fake, backend="explicit")
    assert seen.rows[0] == 3 * BATCH
