"""Frozen steps of critics of every shape, with other conditions and masks in every step."""

import pytest
import torch
from torch import nn

import wgan_fast
from tests.critic_shapes import CASES, B, textbook
from tests.double_backward.oracle import error, gradients

OF_BATCH = ("cond", "cond_kwargs", "mask")
WEIGHT = 3.0


def split(case):
    """(what is given with each batch, what all steps share)."""
    of_batch = {name: case.options[name] for name in OF_BATCH if name in case.options}
    return of_batch, {name: case.options[name] for name in case.options.keys() - of_batch.keys()}


@pytest.mark.parametrize("name", CASES)
def test_against_the_textbook(name):
    """Frozen on one batch, run on others, with labels and masks of their own."""
    case = CASES[name]()
    of_batch, shared = split(case)
    step = wgan_fast.freeze(case.critic, case.real, weight=WEIGHT, **of_batch, **shared)
    graph = step.graph(case.real, **of_batch)
    assert graph is not None
    for _ in range(2):
        # The same networks with all that another case of the kind brings along.
        other = CASES[name]()
        other.critic.load_state_dict(case.critic.state_dict())
        twin = other._replace(critic=case.critic)
        others = split(other)[0]
        alpha = torch.rand(B // case.pac, dtype=torch.float64)
        theirs = textbook(other, alpha, weight=WEIGHT)[1]
        ours = step(twin.real, twin.fake, alpha, **others)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        expected = gradients(theirs, other.critic)
        assert error(gradients(ours, case.critic), expected) < 1e-10
        assert step.graph(twin.real, **others) is graph


def conditional():
    table, layer = nn.Embedding(4, 3).double(), nn.Linear(8, 1).double()
    modules = nn.ModuleList([table, layer])

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = modules

        def forward(self, x, labels, scale=1.0):
            return scale * self.parts[1](torch.cat([x, self.parts[0](labels)], 1)).tanh()

    return Critic()


def test_a_partial_batch_and_what_all_samples_share():
    critic = conditional()
    real, fake = torch.randn(2, B, 5, dtype=torch.float64)
    step = wgan_fast.freeze(critic, real, cond=torch.randint(4, (B,)))
    for count, shared in (
        (B, {}), (3, {}), (B, {"scale": 2.0}), (B, {"scale": 3.0}), (5, {"scale": 3.0}),
        (B, {"scale": torch.tensor(4.0)}), (B, {"scale": torch.tensor(5.0)}), (B, {}),
    ):  # fmt: skip
        labels, alpha = torch.randint(4, (count,)), torch.rand(count, dtype=torch.float64)
        given = real[:count], fake[:count]
        ours = step(*given, alpha, cond=labels, cond_kwargs=shared)
        theirs = wgan_fast.critic_loss(
            critic, *given, alpha=alpha, cond=labels, cond_kwargs=shared, backend="autograd"
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        assert error(gradients(ours, critic), gradients(theirs, critic)) < 1e-10
        value, found = step.value_and_grad(*given, alpha, cond=labels, cond_kwargs=shared)
        assert value == ours
        assert found.keys() == dict(critic.named_parameters()).keys()
    # One for each number of samples and each constant; a tensor is an input.
    assert len(step._frozen) == 6


def test_arguments():
    critic = conditional()
    real, labels = torch.randn(B, 5, dtype=torch.float64), torch.randint(4, (B,))
    step = wgan_fast.freeze(critic, real, cond=labels)
    with pytest.raises(ValueError, match="cond: expected tensors that require no gradients"):
        step(real, real, cond=(labels, torch.ones(B, requires_grad=True)))
    with pytest.raises(TypeError, match=r"cond_kwargs: expected tensors, numbers or strings, got"):
        step(real, real, cond=labels, cond_kwargs={"scale": [1.0]})
    with pytest.raises(ValueError, match="cond: expected a row per sample, first size 8"):
        step(real, real, cond=labels[:3])
    with pytest.raises(ValueError, match="pac: expected a divisor of the batch's 8 samples"):
        wgan_fast.freeze(critic, real, cond=labels, pac=3)


def test_a_mask_that_comes_later_is_not_ignored():
    critic, labels = conditional(), torch.randint(4, (B,))
    real, fake = torch.randn(2, B, 5, dtype=torch.float64)
    alpha, mask = torch.rand(B, dtype=torch.float64), torch.rand(B, 5, dtype=torch.float64)
    step = wgan_fast.freeze(critic, real, cond=labels)
    for given in (None, mask, None):
        ours = step(real, fake, alpha, cond=labels, mask=given)
        theirs = wgan_fast.critic_loss(
            critic, real, fake, alpha=alpha, cond=labels, mask=given, backend="autograd"
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
