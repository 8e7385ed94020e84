import math

import pytest
import torch
from sklearn.datasets import load_digits, make_swiss_roll

from wgan_fast.training.config import TrainConfig
from wgan_fast.training.data import load_data

CPU = torch.device("cpu")
DATA = ["digits", "gaussians-8", "gaussians-25", "swiss-roll"]


def draw(data, count, seed=0, dtype=torch.float64, **settings):
    sampler = load_data(TrainConfig(data=data, **settings), CPU, dtype)
    return sampler(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("data", DATA)
def test_one_seed_one_batch(data):
    torch.testing.assert_close(draw(data, 50), draw(data, 50), rtol=0, atol=0)
    assert not torch.equal(draw(data, 50), draw(data, 50, seed=1))


@pytest.mark.parametrize("data", DATA)
def test_successive_batches_differ_and_leave_the_global_state_alone(data):
    sampler = load_data(TrainConfig(data=data), CPU, torch.float32)
    before = torch.get_rng_state()
    rng = torch.Generator().manual_seed(0)
    assert not torch.equal(sampler(50, rng), sampler(50, rng))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("data", DATA)
def test_dtype_and_shape(data, dtype):
    batch = draw(data, 5, dtype=dtype)
    assert batch.dtype == dtype
    assert batch.shape == ((5, 1, 16, 16) if data == "digits" else (5, 2))


@pytest.mark.parametrize("image_size", [16, 28, 32, 64])
def test_digits_are_the_enlarged_originals(image_size):
    images = load_data(TrainConfig(image_size=image_size), CPU, torch.float64).images
    assert images.shape == (1797, 1, image_size, image_size)
    assert images.min() == -1
    assert images.max() == 1
    # Shrunk again by plain averaging they are the originals, up to the blur of enlarging,
    originals = torch.from_numpy(load_digits().images).unsqueeze(1) / 8 - 1
    shrunk = torch.nn.functional.adaptive_avg_pool2d(images, 8)
    assert (shrunk - originals).abs().mean() < 0.15
    # and each is nearest to its own original (but for a few that have a twin).
    nearest = torch.cdist(shrunk.flatten(1), originals.flatten(1)).argmin(1)
    assert (nearest == torch.arange(1797)).sum() >= 1790


def test_digits_come_uniformly():
    batch = draw("digits", 40_000)
    images = load_data(TrainConfig(), CPU, torch.float64).images
    # A mean over 40,000 draws is within five standard errors of the set's own.
    error = (batch.mean(0) - images.mean(0)).abs()
    assert (error <= 5 * images.std(0) / 200 + 1e-12).all()


@pytest.mark.parametrize(
    ("data", "centres", "deviation"),
    [
        (
            "gaussians-8",
            [
                (2 * math.cos(k * math.pi / 4) / 1.414, 2 * math.sin(k * math.pi / 4) / 1.414)
                for k in range(8)
            ],
            0.02 / 1.414,
        ),
        (
            "gaussians-25",
            [(2 * x / 2.828, 2 * y / 2.828) for x in range(-2, 3) for y in range(-2, 3)],
            0.05 / 2.828,
        ),
    ],
)
def test_gaussians_have_the_papers_centres_weights_and_noise(data, centres, deviation):
    n = 50_000
    points = draw(data, n)
    centres = torch.tensor(centres, dtype=torch.float64)
    distance, mode = torch.cdist(points, centres).min(1)
    assert distance.max() < 6 * deviation
    share = torch.bincount(mode, minlength=len(centres)) / n
    k = 1 / len(centres)
    assert ((share - k).abs() < 5 * math.sqrt(k * (1 - k) / n)).all()
    noise = points - centres[mode]
    assert noise.std().item() == pytest.approx(deviation, rel=0.02)
    assert (noise.mean(0).abs() < 5 * deviation / math.sqrt(n)).all()


def test_swiss_roll_is_scikit_learns():
    n = 20_000
    ours = draw("swiss-roll", n)
    theirs = torch.from_numpy(make_swiss_roll(n, noise=0.25, random_state=0)[0])[:, [0, 2]] / 7.5
    for x, y in (
        (ours[:, 0], theirs[:, 0]),
        (ours[:, 1], theirs[:, 1]),
        (ours.norm(dim=1), theirs.norm(dim=1)),
        (ours.sum(1), theirs.sum(1)),
    ):
        # The two-sample Kolmogorov-Smirnov distance; 0.0195 has a p-value of 0.001.
        both = torch.cat([x, y]).sort().values
        distance = (
            torch.searchsorted(x.sort().values, both, right=True)
            - torch.searchsorted(y.sort().values, both, right=True)
        ).abs().max() / n
        assert distance < 0.0195
