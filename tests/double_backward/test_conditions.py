"""Labels and attributes go with their samples: through merged batches, slices and second calls."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wgan_fast
from tests.double_backward.critics import Apply
from tests.double_backward.oracle import error, gradients, same_start
from wgan_fast import reference
from wgan_fast.double_backward import choice

B, WIDTH, CLASSES = 6, 5, 4


def data():
    real, fake = torch.randn(2, B, WIDTH, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 2, 1])
    return real, fake, labels, torch.rand(B, dtype=torch.float64)


class Conditional(nn.Module):
    """``score(parts, x, y)`` on an embedding and a critic of the samples."""

    def __init__(self, score):
        super().__init__()
        self.score, self.calls = score, []
        self.table = nn.Embedding(CLASSES, WIDTH)
        self.net = nn.Sequential(nn.Linear(WIDTH, 7), nn.Tanh(), nn.Linear(7, 1))
        self.norm = nn.BatchNorm1d(WIDTH)
        self.double()

    def forward(self, x, y):
        self.calls.append(len(x))
        return self.score(self, x, y)


def mixed(critic, real, fake, labels, alpha, **options):
    """The loss, and by how much it is off the reference's."""
    theirs = reference.critic_loss(lambda x: critic(x, labels), real, fake, alpha)
    expected = gradients(theirs, critic)
    ours = wgan_fast.critic_loss(critic, real, fake, cond=labels, alpha=alpha, **options)
    return max(abs(ours - theirs).item(), error(gradients(ours, critic), expected))


def reason(critic):
    return next(iter(choice.unmerged._known.get(critic, {}).values()), None)


# What becomes of labels, and a word of why the batch is not merged.
SCORES = {
    "embedding": (lambda m, x, y: m.net(x + m.table(y)), None),
    "product": (lambda m, x, y: (m.net(x) * m.table(y)).sum(1), None),
    "alone": (lambda m, x, y: m.net(x) + m.net(m.table(y)), None),
    "a row's numbers": (lambda m, x, y: m.net(x) * (1 + y[:, None].double() / 3).log(), None),
    "written": (lambda m, x, y: m.net(x + torch.zeros_like(x).copy_(m.table(y))), None),
    "normalised by the batch": (lambda m, x, y: m.net(m.norm(x) + m.table(y)), "mixes the samples"),
    "normalised labels": (lambda m, x, y: m.net(x + m.norm(m.table(y))), "mixes the samples"),
    "mean embedding": (lambda m, x, y: m.net(x + m.table(y).mean(0)), "may mix"),
    "mean label": (lambda m, x, y: m.net(x) * y.double().mean(), "the conditions of several"),
    "another's label": (lambda m, x, y: m.net(x + m.table(y.flip(0))), "conditions of several"),
    "one-hot": (lambda m, x, y: (m.net(x) * F.one_hot(y, CLASSES)).sum(1), None),
    "one-hot by hand": (
        lambda m, x, y: (m.net(x) * x.new_zeros(len(x), CLASSES).scatter_(1, y[:, None], 1)).sum(1),
        None,
    ),
    "compared": (lambda m, x, y: (m.net(x) * (y[:, None] == torch.arange(CLASSES))).sum(1), None),
    "a row of constants": (lambda m, x, y: m.net(x + m.table.weight.detach()[y]), None),
    "the class's score": (lambda m, x, y: (m.net(x) * m.table(y)).gather(1, y[:, None]), None),
    "classes of one-hots": (
        lambda m, x, y: m.net(x + m.table(F.one_hot(y, CLASSES).argmax(1))), None,
    ),
    "batch of one size": (lambda m, x, y: m.net(x + m.table(y).view(B, WIDTH)), "another size"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCORES)
def test_merged_where_it_is_right(name):
    score, why = SCORES[name]
    critic = Conditional(score)
    for _ in range(2):  # the first call finds out what the second knows
        critic.calls.clear()
        assert same_start(critic, lambda: mixed(critic, *data())) < 1e-10
    # ... after the reference's three calls.
    assert critic.calls[3:] == ([3 * B] if why is None else [B, B, B])
    assert (reason(critic) is None) if why is None else (why in reason(critic))


def through_a_view(x, y):
    zeros = torch.zeros_like(x)
    zeros[:, 0] = y.sum()
    return zeros


def shifted(y):
    moved = y.clone()
    moved[1:] = y[:-1]
    return moved


def crossed(m, y):
    return m.table.weight.detach()[y[:, None], y]


# Nothing of these is seen while all labels are the same, as they may be in a first batch.
SEEING = {
    "share": lambda m, x, y: m.net(x) * (1 + y / (y.sum() + 1))[:, None],
    "range": lambda m, x, y: m.net(x) * (1 + (y - y.min()) / (y.max() - y.min() + 1))[:, None],
    "running sum": lambda m, x, y: m.net(x) * (1 + y.cumsum(0) - y.cumsum(0)[:1])[:, None],
    "rank": lambda m, x, y: m.net(x) * (1 + y.argsort().argsort() * y)[:, None],
    "reversed": lambda m, x, y: m.net(x) * (1 + y.flip(0))[:, None],
    "read": lambda m, x, y: m.net(x) * (1 + y.double().mean().item()),
    "counted": lambda m, x, y: m.net(x) * (1 + int(y.sum())),
    "branch": lambda m, x, y: m.net(x) / (len(x) if y.sum() > 0 else 1),
    "written": lambda m, x, y: m.net(x) * (1 + y.clone().add_(y.sum()))[:, None],
    "read as an integer": lambda m, x, y: m.net(x) * (1 + y.sum().item() / 10),
    "counted as a factor": lambda m, x, y: m.net(x) / (1 + (y > 1).count_nonzero().item() / 2),
    "branch on a factor": lambda m, x, y: m.net(x) * (1 / len(x) if (y > 0).any() else 1.0),
    "a length": lambda m, x, y: m.net(x) * (1.0 + len((y == 2).nonzero())),
    "written through a view": lambda m, x, y: m.net(x + through_a_view(x, y)),
    "shifted through a view": lambda m, x, y: m.net(x) * (1 + shifted(y))[:, None],
    "crossed indices": lambda m, x, y: m.net(x) + crossed(m, y).sum(1, keepdim=True),
}


@pytest.mark.parametrize("backend", ["auto", "explicit"])
@pytest.mark.parametrize("name", SEEING)
def test_a_first_batch_of_equal_labels_proves_nothing(name, backend):
    critic = Conditional(SEEING[name])
    real, fake, labels, alpha = data()
    wgan_fast.critic_loss(critic, real, fake, cond=torch.zeros_like(labels), alpha=alpha)
    assert mixed(critic, real, fake, labels, alpha, backend=backend) < 1e-10


def test_equal_labels_prove_nothing_of_a_loss_without_penalty():
    """The steps between lazy penalties put both batches into one call where that is right."""
    critic = Conditional(SEEING["share"])
    real, fake, labels, _ = data()
    loss = wgan_fast.CriticLoss(critic, penalty="r1", every=3)
    loss(real, fake, cond=torch.zeros_like(labels))
    loss(real, fake, cond=torch.zeros_like(labels))
    expected = critic(fake, labels).mean() - critic(real, labels).mean()
    torch.testing.assert_close(loss(real, fake, cond=labels), expected)


def test_in_slices_of_which_one_is_smaller():
    critic = Conditional(SCORES["product"][0])
    assert mixed(critic, *data(), backend="explicit", chunk_size=4) < 1e-10


@pytest.mark.parametrize("options", [{"scale_grad_by_freq": True}, {"sparse": True}], ids=str)
def test_embeddings_with_gradients_of_their_own_kind(options):
    critic = Conditional(SCORES["embedding"][0])
    critic.table = nn.Embedding(CLASSES, WIDTH, **options).double()
    real, fake, labels, alpha = data()
    ours = wgan_fast.critic_loss(critic, real, fake, cond=labels, alpha=alpha)
    theirs = reference.critic_loss(lambda x: critic(x, labels), real, fake, alpha)
    for got, expected in zip(gradients(ours, critic), gradients(theirs, critic), strict=True):
        torch.testing.assert_close(got, expected)


def test_slices_are_not_for_labels_that_mix():
    critic = Conditional(SCORES["mean label"][0])
    with pytest.raises(ValueError, match="chunk_size: expected a critic whose samples do not see"):
        mixed(critic, *data(), chunk_size=4)


def test_large_batches_are_cut_with_their_labels(monkeypatch):
    monkeypatch.setattr("wgan_fast.double_backward.merged._FITS_THE_CACHE", 256)
    critic = Conditional(SCORES["embedding"][0])
    mixed(critic, *data())
    critic.calls.clear()
    assert mixed(critic, *data(), backend="explicit") < 1e-10
    assert max(critic.calls[3:]) < 3 * B
    assert sum(critic.calls[3:]) == 3 * B


def test_gradients_flow_into_conditions():
    """An embedding outside of the critic, trained with it."""
    table = nn.Embedding(CLASSES, WIDTH).double()
    critic = Conditional(lambda m, x, e: m.net(x + e))
    real, fake, labels, alpha = data()
    theirs = reference.critic_loss(lambda x: critic(x, table(labels)), real, fake, alpha)
    both = nn.ModuleList([critic, table])
    expected = gradients(theirs, both)
    ours = wgan_fast.critic_loss(critic, real, fake, cond=table(labels), alpha=alpha)
    assert error(gradients(ours, both), expected) < 1e-10
    with pytest.raises(RuntimeError, match="gradients flow into cond, which needs autograd"):
        wgan_fast.critic_loss(critic, real, fake, cond=table(labels), backend="explicit")


def test_differentiated_twice():
    critic = Conditional(SCORES["embedding"][0])
    real, fake, labels, alpha = data()
    losses = (
        wgan_fast.critic_loss(critic, real, fake, cond=labels, alpha=alpha),
        reference.critic_loss(lambda x: critic(x, labels), real, fake, alpha),
    )
    found = []
    for loss in losses:
        (first,) = torch.autograd.grad(loss, critic.table.weight, create_graph=True)
        found.append(gradients(first.square().sum(), critic))
    assert error(*found) < 1e-10


def test_a_closure_that_is_made_anew_is_known():
    """What is remembered is of the modules behind it, and of the shape of the call."""
    net = Apply(lambda parts, x: parts[0](x), nn.Linear(WIDTH, 1)).double()
    sizes = []

    def loss():
        def critic(x, y):
            sizes.append(len(x))
            return net(x) * (1 + y[:, None])

        real, fake, labels, _ = data()
        return wgan_fast.critic_loss(critic, real, fake, cond=labels)

    loss()
    sizes.clear()
    loss()
    assert sizes == [3 * B]


def test_compiled_critics_are_unwrapped():
    class Compiled:
        def __init__(self, module):
            self._orig_mod = module

        def __call__(self, *arguments):
            raise AssertionError("cannot be differentiated twice")

    critic = Conditional(SCORES["embedding"][0])
    real, fake, labels, alpha = data()
    ours = wgan_fast.critic_loss(Compiled(critic), real, fake, cond=labels, alpha=alpha)
    expected = wgan_fast.critic_loss(critic, real, fake, cond=labels, alpha=alpha)
    assert torch.equal(ours, expected)


def test_explained():
    critic = Conditional(SCORES["embedding"][0])
    real, _, labels, _ = data()
    explained = wgan_fast.explain(critic, real, labels)
    assert explained.merged
    assert explained.critic_loss.backend == "explicit"
    assert explained.critic == "Conditional"
