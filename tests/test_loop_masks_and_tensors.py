"""CriticLoop under masks and on samples of several tensors, against a loop written by hand."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from wgan_fast import CriticLoop, Penalty

B, N_CRITIC, LATENT, WEIGHT = 4, 2, 3, 3.0
IMAGE, TABLE = (2, 3, 3), (4,)


class Generator(nn.Module):
    """(z, shift) to an image, or with ``kind`` to a tuple or a dict of an image and a table row."""

    def __init__(self, kind, norm=False):
        super().__init__()
        self.kind = kind
        hidden = nn.BatchNorm1d(6) if norm else nn.Identity()
        self.layers = nn.Sequential(nn.Linear(LATENT, 6), hidden, nn.Tanh(), nn.Linear(6, 22))

    def forward(self, z, shift=None):
        made = self.layers(z if shift is None else z + shift)
        image, table = made.split([18, 4], 1)
        image = image.reshape(-1, *IMAGE)
        return {
            "image": image,
            "tuple": (image, table.sigmoid()),
            "dict": {"image": image, "table": table.sigmoid()},
        }[self.kind]


class Critic(nn.Module):
    """Scores of such samples, of so many at a time."""

    def __init__(self, kind, pac=1):
        super().__init__()
        self.pac = pac
        self.conv, self.shift = nn.Conv2d(2, 3, 2), nn.Linear(LATENT, 12)
        self.table, self.last = nn.Linear(4, 12), nn.Linear(12 * pac, 1)

    def forward(self, x, shift=None):
        image, *table = tree_leaves(x)
        hidden = self.conv(image).flatten(1)
        for one in table:
            hidden = hidden + self.table(one)
        if shift is not None:
            hidden = hidden + self.shift(shift)
        return self.last(hidden.tanh().reshape(-1, 12 * self.pac)).squeeze(1)


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)


class Textbook:
    """The iteration in plain autograd; one α and one norm for each pack, or one for each tensor."""

    def __init__(self, generator, critic, separate=False):
        self.generator, self.critic, self.separate = generator, critic, separate
        self.optimizers = sgd(generator), sgd(critic)
        self.rng = torch.Generator().manual_seed(3)

    def draw(self, draw, *shape):
        return draw(shape, generator=self.rng, dtype=torch.float64)

    def penalty(self, real, fake, alpha, masks, given):
        each, pac = alpha.repeat_interleave(self.critic.pac), self.critic.pac

        def between(r, f):
            a = each.view(-1, *[1] * (r.dim() - 1))
            return (a * r + (1 - a) * f).requires_grad_()

        mixed = tree_map(between, real, fake)
        total = self.critic(mixed, *given).sum()
        gradients = torch.autograd.grad(total, tree_leaves(mixed), create_graph=True)
        rows = [
            (g * mask).reshape(len(alpha), -1) for g, mask in zip(gradients, masks, strict=True)
        ]
        assert rows[0].shape[0] * pac == len(each)
        parts = rows if self.separate else [torch.cat(rows, 1)]
        return sum(((row.norm(2, dim=1) - 1) ** 2).mean() for row in parts)

    def __call__(self, reals, masks, cond=(), own=()):
        """``masks``: for each step a list, one for each tensor."""
        batch = tree_leaves(reals)[0].shape[1]
        z = self.draw(torch.randn, N_CRITIC, batch, LATENT)
        alpha = self.draw(torch.rand, N_CRITIC, batch // self.critic.pac)
        fakes = [
            tree_map(torch.detach, self.generator(z[step], *(one[step] for one in cond)))
            for step in range(N_CRITIC)
        ]
        losses, penalties = [], []
        for step, fake in enumerate(fakes):
            given = [one[step] for one in cond]
            real = tree_map(lambda one, step=step: one[step], reals)
            penalty = self.penalty(real, fake, alpha[step], masks[step], given)
            scores = self.critic(real, *given), self.critic(fake, *given)
            loss = scores[1].mean() - scores[0].mean() + WEIGHT * penalty
            self.step(1, loss)
            losses.append(loss.detach())
            penalties.append(penalty.detach())
        fake = self.generator(self.draw(torch.randn, batch, LATENT), *own)
        loss = -self.critic(fake, *own).mean()
        self.step(0, loss)
        return torch.stack(losses).mean(), torch.stack(penalties).mean(), loss.detach()

    def step(self, which, loss):
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()


def loop_over(generator, critic, **options):
    options = {"weight": WEIGHT, "pac": critic.pac, **options}
    return CriticLoop(
        generator, critic, sgd(generator), sgd(critic), latent_shape=LATENT, n_critic=N_CRITIC,
        rng=torch.Generator().manual_seed(3), **options,
    )  # fmt: skip


def pair(kind, pac=1, norm=False, **options):
    """(a loop, the textbook's), of the same parameters and random numbers."""
    modules = Generator(kind, norm).double(), Critic(kind, pac).double()
    textbook = Textbook(*copy.deepcopy(modules), options.get("inputs") == "separate")
    return loop_over(*modules, **options), textbook


def samples(kind, batch=B):
    image, table = (
        torch.randn(N_CRITIC, batch, *shape, dtype=torch.float64) for shape in (IMAGE, TABLE)
    )
    return {"image": image, "tuple": (image, table), "dict": {"image": image, "table": table}}[kind]


def everything(batch, kind):
    """No mask, as one of ones."""
    return None, [[1.0] * len(tree_leaves(samples(kind, 1)))] * N_CRITIC


def holes(batch, kind):
    """Another one for each sample, shared by the channels."""
    mask = torch.rand(N_CRITIC, batch, 1, 3, 3) > 0.4
    return mask, [[one] for one in mask]


def frame(batch, kind):
    """One for all samples of all steps, of the second axis of pixels alone."""
    mask = torch.rand(1, 3, dtype=torch.float64)
    return mask, [[mask]] * N_CRITIC


def each_its_own(batch, kind):
    """A number for all of the first tensor, another one for each sample's row of the second."""
    image, table = torch.tensor(0.5), torch.rand(N_CRITIC, batch, 1, dtype=torch.float64)
    by_kind = {"tuple": (image, table), "dict": {"image": image, "table": table}}
    return by_kind[kind], [[image, one] for one in table]


def run(loop, textbook, kind, masks, batches=(B, B // 2, B), conditional=True):
    """The same iterations by both, a partial batch among them, and the generator's own labels."""
    for batch in batches:
        reals, (mask, of_steps) = samples(kind, batch), masks(batch, kind)
        shift = torch.randn(N_CRITIC + 1, batch, LATENT, dtype=torch.float64)
        given = (shift[1:], shift[0]) if conditional else ()
        seen = loop(reals, *given, mask=mask)
        wanted = textbook(reals, of_steps, *((one,) for one in given))
        got = seen.critic_loss, seen.penalty, seen.generator_loss
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9)
    assert_same(loop, textbook)


def assert_same(loop, textbook):
    for one, other in ((loop.generator, textbook.generator), (loop.critic, textbook.critic)):
        for (name, got), wanted in zip(
            one.state_dict().items(), other.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9, msg=name)


CASES = {
    "holes": ("image", holes, {}),
    "holes in packs": ("image", holes, {"pac": 2}),
    "a frame": ("image", frame, {}),
    "joint": ("tuple", everything, {}),
    "joint in packs under masks": ("dict", each_its_own, {"pac": 2}),
    "separate": ("dict", everything, {"inputs": "separate"}),
    "separate in packs under masks": ("tuple", each_its_own, {"inputs": "separate", "pac": 2}),
}
CAPTURED = {"holes": (B, B // 2, B), "separate in packs under masks": (B, B)}


@pytest.mark.parametrize("name", CASES)
def test_against_the_textbook(name):
    kind, masks, options = CASES[name]
    run(*pair(kind, mode="eager", **options), kind, masks)


@pytest.mark.parametrize("name", ["holes", "separate in packs under masks"])
def test_captured(name):
    """Graphs of a partial batch of their own in one, masks and samples as inputs in both."""
    kind, masks, options = CASES[name]
    run(*pair(kind, mode="captured", **options), kind, masks, batches=CAPTURED[name])


@pytest.mark.parametrize(("kind", "masks"), [("image", holes), ("tuple", each_its_own)])
def test_without_conditions_and_with_batch_statistics(kind, masks):
    """A generator that lets samples see each other is called for each step."""
    run(*pair(kind, norm=True, mode="eager"), kind, masks, batches=(B, B), conditional=False)


class Two(nn.Module):
    """A line and a number from z and a label, or a score of all three: few ops, to be compiled."""

    def __init__(self, critic):
        super().__init__()
        self.critic, self.pac = critic, 1
        self.table = nn.Embedding(4, 2)
        self.layer = nn.Linear(6 if critic else LATENT + 2, 1 if critic else 4)

    def forward(self, x, labels):
        given = [*x, self.table(labels)] if self.critic else [x, self.table(labels)]
        made = self.layer(torch.cat(given, 1)).tanh()
        return made if self.critic else made.split([3, 1], 1)


def test_compiled():
    modules = Two(False).double(), Two(True).double()
    textbook = Textbook(*copy.deepcopy(modules))
    loop = loop_over(*modules, mode="compiled")
    for _ in range(2):
        reals = tuple(torch.randn(N_CRITIC, B, size, dtype=torch.float64) for size in (3, 1))
        mask = torch.rand(N_CRITIC, B, 3), torch.tensor(True)
        labels, own = torch.randint(4, (N_CRITIC, B)), torch.randint(4, (B,))
        loop(reals, labels, own, mask=mask)
        textbook(reals, [[one, mask[1]] for one in mask[0]], (labels,), (own,))
    assert_same(loop, textbook)


def test_other_penalties():
    """Noise around all tensors, lazily and with a λ that adapts: captured as in eager mode."""
    loops = []
    for mode in ("eager", "captured"):
        torch.manual_seed(4)
        adaptive = Penalty.named("dragan")
        loop, _ = pair("tuple", pac=2, mode=mode, penalty=adaptive, every=2, inputs="separate")
        for _ in range(3):
            mask, _ = each_its_own(B, "tuple")
            loop(samples("tuple"), mask=mask)
        loops.append(loop)
    assert_same(*loops)


def test_graphs_are_of_shapes_alone():
    loop, _ = pair("tuple", mode="captured")
    for _ in range(3):
        mask, _ = each_its_own(B, "tuple")
        loop(samples("tuple"), mask=mask)
    loop(samples("tuple"))
    for made in loop._steps.made.values():
        for step in (made.critic[True], made.generator, made.sample):
            assert len(step._graphs) == 1
    assert len(loop._steps.made) == 2


def test_masks_count_where_they_are():
    """Outside of its mask a gradient may be anything: under an empty one it is that of n = 0."""
    loop, _ = pair("image", mode="eager")
    seen = loop(samples("image"), mask=torch.zeros(()))
    assert (seen.penalty, seen.gradient_norm) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "call", "error", "words"),
    [
        ("image", lambda x: (x, torch.ones(2, 9)), ValueError,
         r"mask: expected one that broadcasts to the samples' shape, \(2, 4, 2, 3, 3\), got"),
        ("image", lambda x: (x, 0.5), TypeError, "mask: expected a tensor of numbers or bools"),
        ("image", lambda x: (x, (torch.ones(3),)), ValueError, "mask: expected the structure of"),
        ("tuple", lambda x: (x, torch.ones(3)), ValueError, "mask: expected the structure of"),
        ("image", lambda x: (list(x), None), ValueError,
         r"reals\[0\]: expected shape \(n_critic, B, ...\) with n_critic = 2, got \(4, 2, 3, 3\)"),
        ("tuple", lambda x: ((x[0], x[1][:, :3]), None), ValueError,
         r"reals\[1\]: expected as many samples as in reals\[0\], 4, got \(2, 3, 4\)"),
        ("tuple", lambda x: ((x[0], x[1].float()), None), TypeError,
         r"reals\[1\]: expected the dtype of reals\[0\]"),
        ("tuple", lambda x: ((), None), ValueError, "reals: expected at least one tensor"),
        ("tuple", lambda x: ((x[0], 1), None), TypeError, r"reals\[1\]: expected a tensor"),
        ("tuple", lambda x: (x[0], None), TypeError,
         "generator: expected samples in the structure of the real ones, a tensor, got a tuple"),
        ("image", lambda x: ((x, x), None), TypeError,
         "generator: expected samples in the structure of the real ones, a tuple of 2, got"),
        ("tuple", lambda x: ((x[0], x[1][..., :3]), None), ValueError,
         r"generator: expected samples shaped as the real ones, \[\(2, 3, 3\), \(3,\)\], got \[\("),
    ],
)  # fmt: skip
def test_calls(kind, call, error, words):
    loop, _ = pair(kind, mode="eager")
    reals, mask = call(samples(kind))
    with pytest.raises(error, match=words):
        loop(reals, mask=mask)


def made_and_called(**options):
    loop, _ = pair("image", mode="eager", **options)
    loop(samples("image"), mask=torch.ones(()))


def test_options():
    for options, words in (
        ({"inputs": "both"}, "inputs: expected one of 'joint', 'separate', got 'both'"),
        ({"inputs": "separate"}, 'inputs: expected reals of several tensors, .* for "separate"'),
        ({"objective": "wgan"}, "mask: expected None where there is no penalty, got a torch"),
    ):
        with pytest.raises(ValueError, match=words):
            made_and_called(**options)
    loop, _ = pair("tuple", mode="eager", objective="dcgan", inputs="separate")
    with pytest.raises(ValueError, match='inputs: expected "joint" where there is no penalty'):
        loop(samples("tuple"))
