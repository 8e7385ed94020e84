"""Critics of other shapes in the trainer: labels, packs, maps of scores, two resolutions."""

import json

import pytest
import torch
from PIL import Image

from tests.training.test_resuming import assert_same, quietly
from wgan_fast.training import ConfigError, TrainConfig, load_checkpoint, sample
from wgan_fast.training.data import digits, load_data
from wgan_fast.training.networks import build_networks
from wgan_fast.training.sampling import in_order

CPU, DTYPE = torch.device("cpu"), torch.float64
RUNS = {
    "labels": {"conditional": True},
    "packs": {"pac": 2},
    "packs of points": {"pac": 4, "data": "swiss-roll"},
    "patches": {"critic_scores": "patch"},
    "scales": {"critic_scores": "multi-scale"},
    "all of it": {"conditional": True, "pac": 2, "critic_scores": "multi-scale"},
}


def textbook(config):
    """A loop of three critic calls and a double backward; packs, scales and labels by hand."""
    generator, critic = build_networks(config, CPU, DTYPE)
    data = load_data(config, CPU, DTYPE)
    rng = torch.Generator().manual_seed(config.seed + 2**32)
    critic_optimizer, generator_optimizer = (
        torch.optim.Adam(m.parameters(), lr=1e-4, betas=(config.beta1, 0.9))
        for m in (critic, generator)
    )

    def real_batch():
        rows = torch.randint(1797, (config.batch_size,), generator=rng)
        return data.images[rows], data.labels[rows]

    def scales(scores):
        return scores if isinstance(scores, list) else [scores]

    def z(*steps):
        shape = *steps, config.batch_size, config.latent_dim
        return torch.randn(shape, generator=rng, dtype=DTYPE)

    for _ in range(config.steps):
        if config.is_2d:
            batches = [(data(config.batch_size, rng), None) for _ in range(config.n_critic)]
        else:
            batches = [real_batch() for _ in range(config.n_critic)]
        latents, packs = z(config.n_critic), config.batch_size // config.pac
        alphas = torch.rand(config.n_critic, packs, generator=rng, dtype=DTYPE)
        for (real, labels), latent, alpha in zip(batches, latents, alphas, strict=True):
            given = [labels] if config.conditional else []
            fake = generator(latent, *given).detach()
            alpha = alpha.repeat_interleave(config.pac).reshape(-1, *[1] * (real.ndim - 1))
            mixed = (alpha * real + (1 - alpha) * fake).requires_grad_()
            total = sum(scores.sum() for scores in scales(critic(mixed, *given)))
            (gradient,) = torch.autograd.grad(total, mixed, create_graph=True)
            penalty = ((gradient.reshape(packs, -1).norm(2, dim=1) - 1) ** 2).mean()
            pairs = zip(scales(critic(real, *given)), scales(critic(fake, *given)), strict=True)
            loss = sum(f.mean() - r.mean() for r, f in pairs) + config.penalty_weight * penalty
            critic_optimizer.zero_grad()
            loss.backward()
            critic_optimizer.step()
        generator_optimizer.zero_grad()
        fake = generator(z(), *given)
        (-sum(scores.mean() for scores in scales(critic(fake, *given)))).backward()
        generator_optimizer.step()
    return generator, critic


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("name", "loop"), [*((name, "eager") for name in RUNS), ("all of it", "captured")]
)
def test_same_parameters_as_the_textbook(name, loop, tiny_config, train_quietly):
    config = tiny_config(**RUNS[name], loop=loop, dtype="float64", seed=5)
    assert_trained(train_quietly(config), textbook(config))


def assert_trained(run, expected):
    """The run's generator and critic are the ``expected`` ones."""
    trained = load_checkpoint(run)
    for wanted, got in zip(expected, (trained.generator, trained.critic), strict=True):
        for (key, value), other in zip(
            got.state_dict().items(), wanted.state_dict().values(), strict=True
        ):
            # Adam divides by the gradient's size, so rounding is seen where that is tiny.
            torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-9, msg=key)


@pytest.mark.usefixtures("without_pictures")
def test_resumed(tiny_config, train_quietly, tmp_path):
    assert_resumes(RUNS["all of it"], tiny_config, train_quietly, tmp_path)


def assert_resumes(run, tiny_config, train_quietly, tmp_path):
    """Five steps are three steps and, resumed, two more."""
    settings = {"dtype": "float64", "loop": "eager", **run}
    whole = train_quietly(tiny_config(**settings, steps=5))
    part = train_quietly(tiny_config(**settings, steps=3))
    resumed = quietly(part, steps=5, run_folder=tmp_path / "resumed")
    ends = [load_checkpoint(run) for run in (resumed, whole)]
    for network in ("generator", "critic"):
        assert_same(*(getattr(end, network).state_dict() for end in ends))
    assert_same(ends[0].training, ends[1].training)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("packs of points", {"lipschitz": "sn"}),
        ("all of it", {"objective": "wgan"}),
        ("all of it", {"objective": "dcgan"}),
        ("all of it", {"lipschitz": "ortho"}),
    ],
)
def test_every_objective(name, method, tiny_config, train_quietly):
    """And the slope between fixed samples, which only objectives without a penalty ask for."""
    run = train_quietly(tiny_config(**RUNS[name], **method, steps=1, loop="eager"))
    (row,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert row["gradient_norm"] > 0
    with Image.open(run / "samples" / "step-0000001.png") as picture:
        picture.load()


@pytest.mark.usefixtures("without_pictures")
def test_groupsort_of_packs_and_labels_is_1_lipschitz(tiny_config, train_quietly):
    run = train_quietly(
        tiny_config(lipschitz="groupsort", conditional=True, pac=2, steps=1, loop="eager")
    )
    row = json.loads((run / "metrics.jsonl").read_text())
    assert 0 < row["gradient_norm"] < 1 + 1e-5


def test_labels_are_of_the_digits():
    from sklearn.datasets import load_digits

    data = digits(16, CPU, DTYPE)
    images, labels = data.labelled(50, torch.Generator().manual_seed(1))
    assert torch.equal(images, data(50, torch.Generator().manual_seed(1)))
    small = torch.nn.functional.avg_pool2d(images, 2).squeeze(1) * 8 + 8
    bundle = load_digits()
    known = torch.from_numpy(bundle.images)
    nearest = (small[:, None] - known).square().sum((2, 3)).argmin(1)
    assert (torch.from_numpy(bundle.target)[nearest] == labels).float().mean() > 0.9


def test_sampling_by_label(tiny_config, train_quietly, tmp_path):
    run = train_quietly(tiny_config(conditional=True, steps=1, loop="eager"))
    assert in_order(100).tolist() == [label for label in range(10) for _ in range(10)]
    assert in_order(3).tolist() == [0, 3, 6]
    every = sample(run, count=20, seed=1)
    one = sample(run, count=20, seed=1, label=4, output=tmp_path / "four.png")
    other = sample(run, count=20, seed=1, label=5, output=tmp_path / "five.png")
    assert len({path.read_bytes() for path in (every, one, other)}) == 3
    for label in (-1, 10):
        with pytest.raises(ConfigError, match=f"label: expected a digit from 0 to 9, got {label}"):
            sample(run, label=label)
    plain = train_quietly(tiny_config(data="swiss-roll", steps=1))
    with pytest.raises(ConfigError, match="label: expected none, the run is not conditional"):
        sample(plain, label=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"conditional": True, "data": "gaussians-8"},
            "conditional: only data digits has labels; got data gaussians-8",
        ),
        (
            {"critic_scores": "patch", "data": "swiss-roll"},
            "critic_scores: patch goes with images, data digits; got data swiss-roll",
        ),
        (
            {"critic_scores": "multi-scale", "lipschitz": "groupsort"},
            "critic_scores: multi-scale does not go with lipschitz groupsort",
        ),
        ({"pac": 3}, "pac: expected a divisor of batch_size 64, got 3"),
        ({"pac": 128, "batch_size": 128}, "pac: expected at most 100, the samples of a picture"),
        ({"pac": 0}, "pac: expected an integer of at least 1, got 0"),
        ({"critic_scores": "many"}, "critic_scores: expected one of one, patch, multi-scale; got"),
        ({"conditional": "yes"}, "conditional: expected one of True, False; got 'yes'"),
    ],
)
def test_settings_that_make_no_sense_together(arguments, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**arguments)
