"""Batches that are taken in slices come from a graph of them all, if they are equal."""

import functools

import pytest
import torch
from torch import nn

import wgan_fast
from tests.double_backward.oracle import error, gradients, samples
from wgan_fast import reference
from wgan_fast.double_backward import merged, replays

SHAPE = (6, 3)


def mlp():
    return nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)).double()


def compare(loss, textbook, critic, shape=SHAPE):
    """Value and gradients are the textbook's."""
    real, fake, alpha = samples(shape)
    pair = loss(critic, real, fake, alpha=alpha), textbook(critic, real, fake, alpha)
    torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)
    assert error(*(gradients(one, critic) for one in pair)) < 1e-10


@pytest.mark.parametrize("objective", ["wasserstein", "nonsaturating"])
@pytest.mark.parametrize(
    ("slices", "taken"),
    [(2, 3), (3, 3), (6, 3), (4, 0), (9, 0)],
    ids=["halves", "thirds", "samples", "unequal", "more than samples"],
)
def test_batches_beyond_the_cache(slices, taken, objective, counted, monkeypatch):
    """A graph of all slices, if they are equal."""
    critic = mlp()
    largest = 3 * SHAPE[0] * 8 * 8  # of the merged batch's hidden layer, in bytes
    monkeypatch.setattr(merged, "_FITS_THE_CACHE", -(-largest // slices))
    monkeypatch.setattr(replays, "CALLS_BEFORE", 2)
    sizes = []
    record = merged.record
    monkeypatch.setattr(
        merged, "record", lambda critic, x, *rest, **more: (
            sizes.append(len(x)), record(critic, x, *rest, **more)
        )[1],
    )  # fmt: skip
    loss = functools.partial(wgan_fast.critic_loss, objective=objective)
    textbook = functools.partial(loss, backend="autograd")
    for _ in range(2 + 2):
        compare(loss, lambda c, real, fake, alpha: textbook(c, real, fake, alpha=alpha), critic)
    assert 3 * SHAPE[0] // slices in sizes or 3 * -(-SHAPE[0] // slices) in sizes
    assert counted.replayed == taken
    assert counted.missed == 0


@pytest.mark.parametrize(("chunk_size", "taken"), [(1, 3), (2, 3), (3, 3), (4, 0), (6, 3), (9, 3)])
@pytest.mark.parametrize("name", ["critic_loss", "gradient_penalty"])
def test_chunks(name, chunk_size, taken, counted, monkeypatch):
    monkeypatch.setattr(replays, "CALLS_BEFORE", 2)
    critic = mlp()
    loss = functools.partial(getattr(wgan_fast, name), chunk_size=chunk_size)
    for _ in range(2 + 2):
        compare(loss, getattr(reference, name), critic)
    assert counted.replayed == taken
    assert counted.missed == 0


def test_a_graph_of_few_chunks_alone(counted):
    """Each has its ops in it: nine are too many. Another size is another graph."""
    critic = mlp()
    so_far = 0
    for chunk_size, taken in ((2, 0), (3, 3), (6, 3), (3, 3), (None, 3)):
        loss = functools.partial(wgan_fast.critic_loss, chunk_size=chunk_size)
        for _ in range(3):
            compare(loss, reference.critic_loss, critic, (18, 3))
        so_far += taken
        assert counted.replayed == so_far


def test_chunks_of_samples_that_see_each_other_still_raise(counted):
    critic = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).double()
    real, fake, alpha = samples(SHAPE)
    for _ in range(3):
        with pytest.raises(ValueError, match="chunk_size: expected a critic whose samples do not"):
            wgan_fast.critic_loss(critic, real, fake, alpha=alpha, chunk_size=3)
    assert counted.replayed == 0
