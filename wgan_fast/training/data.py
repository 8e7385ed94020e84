"""The data: real digits that scikit-learn brings along, and the WGAN-GP paper's 2-D toys.

A data set is a function from a batch size and a random generator to a batch on the generator's
device. Everything is drawn on that device, and nothing but that generator decides what comes.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

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
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __call__(self, batch_size: int, rng: torch.Generator) -> Tensor:
        """Images of shape (batch_size, C, H, W)."""
        rows = torch.randint(
            len(self.images), (batch_size,), generator=rng, device=self.images.device
        )
        return self.images[rows]


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
        Images of shape (1797, 1, image_size, image_size), values in [-1, 1].
    """
    from sklearn.datasets import load_digits
    from torchvision.transforms.functional import InterpolationMode, resize

    grey = torch.from_numpy(load_digits().images).unsqueeze(1) / 16.0
    enlarged = resize(
        grey, [image_size, image_size], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    # Bicubic interpolation overshoots at edges.
    return Images((2 * enlarged - 1).clamp(-1, 1).to(device, dtype))


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
