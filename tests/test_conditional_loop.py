"""CriticLoop with conditions, packs, maps of scores and scales, against loops written by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wgan_fast import CriticLoop

B, N_CRITIC, LATENT, CLASSES, WEIGHT = 6, 2, 3, 4, 3.0


class Generator(nn.Module):
    """(z, label, attributes) to images (B, 2, 6, 6)."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(CLASSES, 3)
        self.layers = nn.Sequential(nn.Linear(LATENT + 9, 7), nn.Tanh(), nn.Linear(7, 72))

    def forward(self, z, labels=None, attributes=None):
        given = torch.zeros(len(z), 9, dtype=z.dtype)
        if labels is not None:
            one_hot = F.one_hot(labels, CLASSES).to(z.dtype)
            given = torch.cat([self.table(labels), one_hot, attributes], 1)
        return self.layers(torch.cat([z, given], 1)).reshape(-1, 2, 6, 6)


class Critic(nn.Module):
    """Scores of images, in a shape that ``kind`` names, with conditions or without."""

    def __init__(self, kind, pac=1):
        super().__init__()
        self.kind, self.pac = kind, pac
        self.condition = nn.Linear(CLASSES + 2, 36)
        self.layers = nn.ModuleList([nn.Conv2d(3 * pac, 4, 3), nn.Conv2d(4, 1, 2)])
        self.coarse = nn.Conv2d(3 * pac, 1, 2)

    def forward(self, x, labels=None, attributes=None):
        given = x[:, :1] * 0
        if labels is not None:
            one_hot = F.one_hot(labels, CLASSES).to(x.dtype)
            given = self.condition(torch.cat([one_hot, attributes], 1)).reshape(-1, 1, 6, 6)
        x = torch.cat([x, given], 1)
        x = x.reshape(-1, self.pac * 3, 6, 6)
        scores = self.layers[1](self.layers[0](x).tanh())
        if self.kind == "patches":
            return scores
        if self.kind == "scales":
            return [scores, self.coarse(F.avg_pool2d(x, 2)).tanh()]
        return scores.flatten(1).sum(1)


def sgd(module):
    # The gradient of a critic's last bias is zero but for rounding, of which Adam makes a step.
    return torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)


def scales(scores):
    return scores if isinstance(scores, list) else [scores]


def textbook_critic_loss(critic, real, fake, alpha, cond, pac):
    """Three calls of the critic and a double backward; one α and one norm for each pack."""
    alpha = alpha.repeat_interleave(pac).view(-1, *[1] * (real.dim() - 1))
    x = (alpha * real + (1 - alpha) * fake).requires_grad_()
    total = sum(scores.sum() for scores in scales(critic(x, *cond)))
    (gradient,) = torch.autograd.grad(total, x, create_graph=True)
    penalty = ((gradient.reshape(len(x) // pac, -1).norm(2, dim=1) - 1) ** 2).mean()
    pairs = zip(scales(critic(fake, *cond)), scales(critic(real, *cond)), strict=True)
    return sum(f.mean() - r.mean() for f, r in pairs) + WEIGHT * penalty


class Textbook:
    """The iteration as conditional WGAN-GPs have it, in plain autograd."""

    def __init__(self, generator, critic, rng, objective="wgan-gp"):
        self.generator, self.critic, self.rng, self.pac = generator, critic, rng, critic.pac
        self.optimizers = sgd(generator), sgd(critic)
        self.objective = objective

    def draw(self, draw, *shape):
        return draw(shape, generator=self.rng, dtype=torch.float64)

    def __call__(self, reals, cond=(), generator_cond=()):
        batch = reals.shape[1]
        z = self.draw(torch.randn, N_CRITIC, batch, LATENT)
        alpha = self.draw(torch.rand, N_CRITIC, batch // self.pac)
        losses = []
        for step, real in enumerate(reals):
            given = [one[step] for one in cond]
            fake = self.generator(z[step], *given).detach()
            if self.objective == "wgan-gp":
                loss = textbook_critic_loss(self.critic, real, fake, alpha[step], given, self.pac)
            else:
                pairs = zip(
                    scales(self.critic(real, *given)), scales(self.critic(fake, *given)),
                    strict=True,
                )  # fmt: skip
                loss = sum(F.softplus(-r).mean() + F.softplus(f).mean() for r, f in pairs)
            self.step(1, loss)
            losses.append(loss.detach())
        fake = self.generator(self.draw(torch.randn, batch, LATENT), *generator_cond)
        scores = scales(self.critic(fake, *generator_cond))
        if self.objective == "wgan-gp":
            loss = -sum(one.mean() for one in scores)
        else:
            loss = sum(F.softplus(-one).mean() for one in scores)
        self.step(0, loss)
        return torch.stack(losses).mean(), loss.detach()

    def step(self, which, loss):
        optimizer = self.optimizers[which]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def pair(kind="one", pac=1, **options):
    """(a loop, the textbook's), of the same parameters and random numbers."""
    generator, critic = Generator().double(), Critic(kind, pac).double()
    twins = copy.deepcopy((generator, critic))
    loop = CriticLoop(
        generator, critic, sgd(generator), sgd(critic), latent_shape=LATENT, n_critic=N_CRITIC,
        rng=torch.Generator().manual_seed(3), pac=pac, select=list if kind == "scales" else None,
        **options,
    )  # fmt: skip
    rng = torch.Generator().manual_seed(3)
    return loop, Textbook(*twins, rng, options.get("objective", "wgan-gp"))


def images(batch=B):
    return torch.randn(N_CRITIC, batch, 2, 6, 6, dtype=torch.float64)


def conditions(*leading):
    return torch.randint(CLASSES, leading), torch.randn(*leading, 2, dtype=torch.float64)


def assert_same(loop, textbook):
    for one, other in ((loop.generator, textbook.generator), (loop.critic, textbook.critic)):
        for (name, got), wanted in zip(one.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize(("kind", "pac"), [("one", 1), ("patches", 3), ("scales", 2)])
def test_conditions_are_inputs(kind, pac, mode):
    """Other labels in every call, a partial last batch among them, and the generator's own."""
    loop, textbook = pair(kind, pac, mode=mode, weight=WEIGHT)
    for call in range(5):
        batch = B if call != 3 else B // 2 * 2 - (2 if pac == 2 else 3)
        reals, cond = images(batch), conditions(N_CRITIC, batch)
        own = conditions(batch) if call % 2 else None
        seen = loop(reals, cond, own)
        last = tuple(one[-1] for one in cond)
        critic_loss, generator_loss = textbook(reals, cond, last if own is None else own)
        torch.testing.assert_close(seen.critic_loss, critic_loss, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(seen.generator_loss, generator_loss, rtol=1e-8, atol=1e-9)
    assert_same(loop, textbook)


@pytest.mark.parametrize(("kind", "pac"), [("one", 2), ("patches", 1), ("scales", 1)])
def test_without_conditions(kind, pac):
    for mode in ("eager", "captured"):
        loop, textbook = pair(kind, pac, mode=mode, weight=WEIGHT)
        for _ in range(3):
            reals = images()
            loop(reals)
            textbook(reals)
        assert_same(loop, textbook)


@pytest.mark.parametrize("mode", ["eager", "captured"])
def test_cross_entropy_of_packs_and_scales(mode):
    loop, textbook = pair("scales", 2, mode=mode, objective="dcgan")
    for _ in range(3):
        reals, cond, own = images(), conditions(N_CRITIC, B), conditions(B)
        seen = loop(reals, cond, own)
        losses = textbook(reals, cond, own)
        torch.testing.assert_close((seen.critic_loss, seen.generator_loss), losses)
    assert_same(loop, textbook)


def test_other_penalties_with_packs():
    """Noise around packs, lazily and with a λ that adapts: captured as in eager mode."""
    loops = []
    for mode in ("eager", "captured"):
        torch.manual_seed(4)
        loop, _ = pair("patches", 2, mode=mode, penalty="dragan", every=2, drift=0.1)
        for _ in range(3):
            loop(images(), conditions(N_CRITIC, B))
        loops.append(loop)
    assert_same(*loops)


def test_graphs_are_of_shapes_alone():
    loop, _ = pair(mode="captured")
    for _ in range(4):
        loop(images(), conditions(N_CRITIC, B), conditions(B))
    (made,) = loop._steps.made.values()
    steps = made.critic[True], made.generator, made.sample
    assert [len(step._graphs) for step in steps] == [1, 1, 1]
    loop(images(3), conditions(N_CRITIC, 3))
    labels, attributes = conditions(N_CRITIC, B)
    loop(images(), (labels.clone(), attributes.transpose(0, 1).contiguous().transpose(0, 1)))
    # All steps' conditions come to the fakes in one run of memory, whatever they were.
    assert [len(step._graphs) for step in steps] == [3, 3, 2]


def test_one_call_of_a_conditional_generator():
    sizes = []
    loop, textbook = pair(mode="eager", weight=WEIGHT)
    for call in range(2):
        sizes.clear()
        if not call:
            loop.generator.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        given = images(), conditions(N_CRITIC, B), conditions(B)
        loop(*given)
        textbook(*given)
    assert sizes == [N_CRITIC * B, B]
    assert_same(loop, textbook)


def test_arguments():
    loop, _ = pair(mode="eager")
    labels, attributes = conditions(N_CRITIC, B)
    for cond, own, message in (
        (labels[0], None, r"cond: expected shape \(n_critic, B, ...\), .* with \(2, 6\)"),
        (labels[:, :3], None, "cond: expected shape"),
        ((), None, "cond: expected at least one tensor"),
        (None, labels[0], "generator_cond: expected None without cond"),
        (labels, attributes[0], "generator_cond: expected the shapes of cond without its first"),
        ((labels, attributes), labels[0], "generator_cond: expected the shapes of cond"),
        (labels, labels[0, :2], r"generator_cond: expected shape \(B, ...\)"),
        (
            attributes.clone().requires_grad_(),
            None,
            "cond: expected a tensor that requires no gradients",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            loop(images(), cond, own)
    with pytest.raises(TypeError, match="cond: expected a tensor of shape"):
        loop(images(), [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="pac: expected an integer of at least 1, got 0"):
        CriticLoop(
            loop.generator, loop.critic, sgd(loop.generator), sgd(loop.critic), latent_shape=LATENT,
            pac=0,
        )  # fmt: skip
    packed, _ = pair(pac=2, mode="eager")
    with pytest.raises(ValueError, match="pac: expected a divisor of the batch's 5 samples"):
        packed(images(5))


def test_labels_out_of_range():
    """A one-hot row is not looked at in a graph, but for the labels that it is made with."""
    loop, _ = pair(mode="captured")
    labels, attributes = conditions(N_CRITIC, B)
    with pytest.raises((RuntimeError, IndexError)):
        loop(images(), (labels + CLASSES, attributes))
