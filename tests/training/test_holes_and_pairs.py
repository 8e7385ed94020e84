"""Inpainting, and digits together with their labels, in the trainer."""

import json

import pytest
import torch
from PIL import Image

from tests.training.test_shapes import assert_resumes, assert_trained
from wgan_fast.training import ConfigError, TrainConfig, load_checkpoint, sample, sampling
from wgan_fast.training.data import draw_holes, load_data
from wgan_fast.training.networks import build_networks

CPU, DTYPE = torch.device("cpu"), torch.float64
RUNS = {
    "holes": {"inpaint": True},
    "holes in packs": {"inpaint": True, "pac": 2, "critic_scores": "multi-scale"},
    "joint pairs": {"pairs": "joint"},
    "separate pairs": {"pairs": "separate", "pac": 2},
}


def scales(scores):
    return scores if isinstance(scores, list) else [scores]


class Textbook:
    """Three critic calls and a double backward; masks, pairs, packs and scales by hand."""

    def __init__(self, config):
        self.config = config
        self.generator, self.critic = build_networks(config, CPU, DTYPE)
        self.data = load_data(config, CPU, DTYPE)
        self.rng = torch.Generator().manual_seed(config.seed + 2**32)

    def batch(self):
        """(tensors of the samples, what both networks take besides, the mask)"""
        count, size = self.config.batch_size, self.config.image_size
        rows = torch.randint(1797, (count,), generator=self.rng)
        images = self.data.images[rows]
        if not self.config.inpaint:
            return [images, torch.eye(10, dtype=DTYPE)[self.data.labels[rows]]], [], None
        top, left = torch.randint(size // 2 + 1, (2, count, 1), generator=self.rng)
        hole = torch.zeros(count, 1, size, size, dtype=DTYPE)
        for one, y, x in zip(hole, top, left, strict=True):
            one[0, y : y + size // 2, x : x + size // 2] = 1
        return [images], [torch.cat([images * (1 - hole), hole], 1)], hole

    def scores(self, tensors, given):
        return scales(self.critic(tensors[0] if len(tensors) == 1 else tuple(tensors), *given))

    def made(self, z, given):
        fake = self.generator(z, *given)
        return list(fake) if isinstance(fake, tuple) else [fake]

    def z(self, *steps):
        shape = *steps, self.config.batch_size, self.config.latent_dim
        return torch.randn(shape, generator=self.rng, dtype=DTYPE)

    def loss(self, real, fake, given, mask, alpha):
        each, mixed = alpha.repeat_interleave(self.config.pac), []
        for r, f in zip(real, fake, strict=True):
            a = each.reshape(-1, *[1] * (r.ndim - 1))
            mixed.append((a * r + (1 - a) * f).requires_grad_())
        total = sum(scores.sum() for scores in self.scores(mixed, given))
        gradients = torch.autograd.grad(total, mixed, create_graph=True)
        rows = [(g if mask is None else g * mask).reshape(len(alpha), -1) for g in gradients]
        parts = rows if self.config.pairs == "separate" else [torch.cat(rows, 1)]
        penalty = sum(((row.norm(2, dim=1) - 1) ** 2).mean() for row in parts)
        pairs = zip(self.scores(real, given), self.scores(fake, given), strict=True)
        return sum(f.mean() - r.mean() for r, f in pairs) + self.config.penalty_weight * penalty

    def train(self):
        config = self.config
        optimizers = [
            torch.optim.Adam(m.parameters(), lr=1e-4, betas=(0.0, 0.9))
            for m in (self.critic, self.generator)
        ]
        for _ in range(config.steps):
            batches = [self.batch() for _ in range(config.n_critic)]
            latents, packs = self.z(config.n_critic), config.batch_size // config.pac
            alphas = torch.rand(config.n_critic, packs, generator=self.rng, dtype=DTYPE)
            for (real, given, mask), z, alpha in zip(batches, latents, alphas, strict=True):
                fake = [one.detach() for one in self.made(z, given)]
                optimizers[0].zero_grad()
                self.loss(real, fake, given, mask, alpha).backward()
                optimizers[0].step()
            optimizers[1].zero_grad()
            scores = self.scores(self.made(self.z(), given), given)
            (-sum(one.mean() for one in scores)).backward()
            optimizers[1].step()
        return self.generator, self.critic


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("name", "loop"), [(name, "captured" if name == "holes" else "eager") for name in RUNS]
)
def test_same_parameters_as_the_textbook(name, loop, tiny_config, train_quietly):
    config = tiny_config(**RUNS[name], loop=loop, dtype="float64", seed=5, steps=2)
    assert_trained(train_quietly(config), Textbook(config).train())


@pytest.mark.usefixtures("without_pictures")
def test_resumed(tiny_config, train_quietly, tmp_path):
    """Holes and all; pairs are resumed from the command line, in test_cli."""
    assert_resumes(RUNS["holes"], tiny_config, train_quietly, tmp_path)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("holes", {"objective": "wgan", "pac": 3, "batch_size": 6}),
        ("holes", {"lipschitz": "groupsort"}),
        ("joint pairs", {"objective": "dcgan"}),
        ("joint pairs", {"lipschitz": "sn", "pac": 2}),
    ],
)
def test_every_objective(name, method, tiny_config, train_quietly, tmp_path):
    """And the slope between fixed samples, in the hole, which only those without a penalty ask."""
    run = train_quietly(tiny_config(**{**RUNS[name], **method}, steps=1, loop="eager"))
    (row,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert row["gradient_norm"] > 0
    if method.get("lipschitz") == "groupsort":
        assert row["gradient_norm"] < 1 + 1e-5
    for path in (run / "samples" / "step-0000001.png", sample(run, count=5)):
        with Image.open(path) as picture:
            picture.load()


def test_a_sample_of_filled_holes_shows_them_between_what_they_are_of(
    tiny_config, train_quietly, tmp_path, monkeypatch
):
    run = train_quietly(tiny_config(**RUNS["holes"], steps=1, loop="eager"))
    seen = []
    monkeypatch.setattr(sampling, "save_grid", lambda images, path: seen.append(images))
    for seed in (1, 1, 2):
        sample(run, count=7, seed=seed, output=tmp_path / "grid.png")
    assert torch.equal(seen[0], seen[1])
    holed, filled, real = seen[0].split(16, 3)
    assert not torch.equal(real, seen[2].split(16, 3)[2])
    known = holed == real
    # Bicubic white overshoots and is cut, black too: a hole is grey, which some pixels are as well.
    assert (~known).sum() > 7 * 8 * 8 / 2
    assert torch.equal(filled[known & (real != 0)], real[known & (real != 0)])
    assert (filled != real).any()
    with pytest.raises(ConfigError, match="label: expected none, the run is not conditional"):
        sample(run, label=3)


def test_a_sample_of_pairs_is_sorted(tiny_config, train_quietly, tmp_path, monkeypatch):
    run = train_quietly(tiny_config(**RUNS["joint pairs"], steps=1, loop="eager"))
    seen = []
    monkeypatch.setattr(sampling, "save_grid", lambda images, path: seen.append(images))
    sample(run, count=20, seed=1, output=tmp_path / "grid.png")
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        images, labels = load_checkpoint(run).generator(z)
    torch.testing.assert_close(labels.sum(1), torch.ones(20))
    order = sorted(range(20), key=lambda row: labels[row].argmax().item())
    torch.testing.assert_close(seen[0], images[order])


def test_holes_are_squares_anywhere():
    holes = draw_holes(2000, 16, torch.Generator().manual_seed(1)).flatten(1, 2)
    assert (holes.sum((1, 2)) == 64).all()
    corners = {(int(one.any(1).int().argmax()), int(one.any(0).int().argmax())) for one in holes}
    assert corners == {(y, x) for y in range(9) for x in range(9)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"inpaint": True, "data": "swiss-roll"}, "inpaint: only data digits are images; got"),
        ({"pairs": "joint", "data": "swiss-roll"}, "pairs: only data digits has labels; got"),
        ({"inpaint": True, "conditional": True}, "inpaint: does not go with conditional, which"),
        ({"inpaint": True, "pairs": "joint"}, "pairs: does not go with inpaint, which"),
        ({"conditional": True, "pairs": "joint"}, "pairs: does not go with conditional, which"),
        (
            {"pairs": "separate", "lipschitz": "sn"},
            "pairs: separate is of gradient penalties, which sn is not; expected joint",
        ),
        (
            {"pairs": "joint", "lipschitz": "groupsort"},
            "pairs: joint does not go with lipschitz groupsort",
        ),
        ({"pairs": "both"}, "pairs: expected one of none, joint, separate; got 'both'"),
        ({"inpaint": 1.5}, "inpaint: expected one of True, False; got 1.5"),
    ],
)
def test_settings_that_make_no_sense_together(arguments, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**arguments)
