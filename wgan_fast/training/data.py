"""The data: real digits that scikit-learn brings along, and the WGAN-GP paper's 2-D toys.

A data set is a function from a batch size and a random generator to a batch on the generator's
device. Everything is drawn on that device, and nothing but that generator decides what comes.
"""

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from wgan_fast.models import with_hole
from wgan_fast.training.choices import CLASSES
from wgan_fast.training.config import TrainConfig


class DataSet(Protocol):
    """Draws batches of real samples."""

    def __call__(self, batch_size: int, rng: torch.Generator) -> Tensor:
        """A batch of shape (batch_size, ...) on the random generator's device."""
        ...


class Images:
    """Batches drawn uniformly, with replacement, from a tensor of images that stays on the device.

    Args:
        images: shape (N, C, H, W), values in [-1, 1].
        labels: integers, shape (N,).
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __call__(self, batch_size: int, rng: torch.Generator) -> Tensor:
        """Images of shape (batch_size, C, H, W)."""
        return self.labelled(batch_size, rng)[0]

    def labelled(self, batch_size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same images with their labels, (batch_size,)."""
        rows = torch.randint(
            len(self.images), (batch_size,), generator=rng, device=self.images.device
        )
        return self.images[rows], self.labels[rows]


class GaussianMixture:
    """Points around equally likely centres: centre + σ · normal noise.

    Args:
        centres: shape (K, 2).
        deviation: σ, in the units of the centres.
    """

    def __init__(self, centres: Tensor, deviation: float) -> None:
        self.centres = centres
        self.deviation = deviation

    def __call__(self, batch_size: int, rng: torch.Generator) -> Tensor:
        """Points of shape (batch_size, 2)."""
        device, dtype = self.centres.device, self.centres.dtype
        rows = torch.randint(len(self.centres), (batch_size,), generator=rng, device=device)
        noise = torch.randn(batch_size, 2, generator=rng, device=device, dtype=dtype)
        return self.centres[rows] + self.deviation * noise


class SwissRoll:
    """The swiss roll seen from above: (t cos t, t sin t), t uniform on [1.5π, 4.5π], with noise.

    That is scikit-learn's ``make_swiss_roll`` with noise 0.25 and without its second coordinate,
    divided by 7.5 as in the paper's code.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype

    def __call__(self, batch_size: int, rng: torch.Generator) -> Tensor:
        """Points of shape (batch_size, 2)."""
        u = torch.rand(batch_size, generator=rng, device=self.device, dtype=self.dtype)
        noise = torch.randn(batch_size, 2, generator=rng, device=self.device, dtype=self.dtype)
        t = 1.5 * math.pi * (1 + 2 * u)
        return (torch.stack([t * t.cos(), t * t.sin()], dim=1) + 0.25 * noise) / 7.5


def digits(image_size: int, device: torch.device, dtype: torch.dtype) -> Images:
    """The 1,797 handwritten digits of scikit-learn, 8×8 with 17 grey levels, enlarged.

    They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and
    Kaynak 1998), come with scikit-learn and need no download.

    Returns:
        Images of shape (1797, 1, image_size, image_size), values in [-1, 1], and what they show.
    """
    from sklearn.datasets import load_digits
    from torchvision.transforms.functional import InterpolationMode, resize

    bundle = load_digits()
    grey = torch.from_numpy(bundle.images).unsqueeze(1) / 16.0
    labels = torch.from_numpy(bundle.target).long().to(device)
    enlarged = resize(
        grey, [image_size, image_size], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    # Bicubic interpolation overshoots at edges.
    return Images((2 * enlarged - 1).clamp(-1, 1).to(device, dtype), labels)


def gaussians_8(device: torch.device, dtype: torch.dtype) -> GaussianMixture:
    """Eight Gaussians on a circle: radius 2, σ = 0.02, both divided by 1.414 (arXiv 1704.00028)."""
    angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    centres = torch.stack([angles.cos(), angles.sin()], dim=1) * 2 / 1.414
    return GaussianMixture(centres.to(device, dtype), 0.02 / 1.414)


def gaussians_25(device: torch.device, dtype: torch.dtype) -> GaussianMixture:
    """A 5×5 grid of Gaussians: pitch 2, σ = 0.05, both divided by 2.828 (arXiv 1704.00028)."""
    axis = torch.arange(-2, 3, dtype=torch.float64) * 2 / 2.828
    return GaussianMixture(torch.cartesian_prod(axis, axis).to(device, dtype), 0.05 / 2.828)


def load_data(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> DataSet:
    """The data set that the config names."""
    if config.data == "digits":
        return digits(config.image_size, device, dtype)
    if config.data == "gaussians-8":
        return gaussians_8(device, dtype)
    if config.data == "gaussians-25":
        return gaussians_25(device, dtype)
    return SwissRoll(device, dtype)


class Drawn(NamedTuple):
    """Real samples, and what comes with them."""

    real: Any
    """A tensor, or a pair of them."""
    cond: tuple[Tensor, ...] = ()
    """What generator and critic take besides: labels, or images with their holes."""
    mask: Tensor | None = None
    """1 where the penalty's gradient counts; everywhere without one."""


def draw_real(data: DataSet, config: TrainConfig, count: int, rng: torch.Generator) -> Drawn:
    """``count`` real samples, as the config's critic takes them."""
    if not isinstance(data, Images):
        return Drawn(data(count, rng))
    images, labels = data.labelled(count, rng)
    if config.conditional:
        return Drawn(images, (labels,))
    if config.pairs != "none":
        return Drawn((images, one_hot(labels, CLASSES).to(images.dtype)))
    if config.inpaint:
        hole = draw_holes(count, config.image_size, rng).to(images.dtype)
        return Drawn(images, (with_hole(images, hole),), hole)
    return Drawn(images)


def draw_reals(data: DataSet, config: TrainConfig, rng: torch.Generator) -> Drawn:
    """The same for all critic steps of an iteration, (n_critic, B, ...)."""
    drawn = [draw_real(data, config, config.batch_size, rng) for _ in range(config.n_critic)]
    real, cond, masks = zip(*drawn, strict=True)
    mask = torch.stack(masks) if config.inpaint else None
    return Drawn(_stacked(real), tuple(map(torch.stack, zip(*cond, strict=True))), mask)


def _stacked(samples: tuple[Any, ...]) -> Any:
    if isinstance(samples[0], Tensor):
        return torch.stack(samples)
    return tuple(map(torch.stack, zip(*samples, strict=True)))


def draw_holes(count: int, image_size: int, rng: torch.Generator) -> Tensor:
    """1 in a square of half the image's side, anywhere in it, 0 elsewhere: (count, 1, S, S)."""
    side, device = image_size // 2, rng.device
    places = torch.randint(image_size - side + 1, (2, count, 1), generator=rng, device=device)
    pixels = torch.arange(image_size, device=device)
    rows, columns = ((pixels >= place) & (pixels < place + side) for place in places)
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
