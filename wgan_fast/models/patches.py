"""Critics with more than one score per image: a map of scores, and maps of several resolutions."""

import torch.nn.functional as F
from torch import Tensor, nn

from wgan_fast.models._checks import require_positive
from wgan_fast.models.dcgan import Normalisation, halving_layers, initialise
from wgan_fast.models.spectral import Lipschitz, constrain

_HALVINGS = 2


class PatchCritic(nn.Module):
    """Images ``(B, image_channels, H, W)`` to a map of scores, ``(B, 1, H/4, W/4)``, unbounded.

    The PatchGAN discriminator of Isola et al., 2017 (arXiv 1611.07004), for small images: two of
    DCGAN's halvings, then a 3×3 convolution to one channel. Each score is of the 18×18 pixels that
    it sees; those at the border see less. Fully convolutional: images of any size from 4 pixels on.

    Args:
        channels: feature maps of the first layer; the second has twice as many.
        image_channels: 1 for grey, 3 for colour.
        normalisation: as for :class:`DCGANCritic`.
        lipschitz: as for :class:`DCGANCritic`; it bounds the slope of each score.

    Raises:
        ValueError: a normalisation or constraint that is not offered, a size below 1, or images of
            another shape.
        TypeError: a size is not an int.
    """

    def __init__(
        self,
        *,
        channels: int = 64,
        image_channels: int = 3,
        normalisation: Normalisation = "none",
        lipschitz: Lipschitz = "none",
    ) -> None:
        super().__init__()
        require_positive(channels=channels, image_channels=image_channels)
        self.image_channels = image_channels
        layers = halving_layers(image_channels, channels, _HALVINGS, normalisation)
        last = nn.Conv2d(channels * 2 ** (_HALVINGS - 1), 1, 3, padding=1)
        self.layers = nn.Sequential(*layers, last)
        self.apply(initialise)
        constrain(self, lipschitz)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of shape (B, 1, H/4, W/4), rounded down, for images (B, image_channels, H, W)."""
        least = 2**_HALVINGS
        if (
            images.ndim != 4
            or images.shape[1] != self.image_channels
            or min(images.shape[2:]) < least
        ):
            raise ValueError(
                f"images: expected shape (B, {self.image_channels}, H, W) with sides of at least "
                f"{least}, got {tuple(images.shape)}"
            )
        scores: Tensor = self.layers(images)
        return scores


class MultiScaleCritic(nn.Module):
    """Images to a list of two maps of scores: of the image, and of its half resolution.

    The multi-scale discriminator of Wang et al., 2018 (arXiv 1711.11585), with two scales: a
    :class:`PatchCritic` on the image and another one, of the same sizes, on the means of its 2×2
    pixels, whose scores see four times as much of it.

    Args:
        channels: of each of the two, like all that follow.
        image_channels: 1 for grey, 3 for colour.
        normalisation: as for :class:`DCGANCritic`.
        lipschitz: as for :class:`DCGANCritic`.

    Raises:
        ValueError, TypeError: as :class:`PatchCritic`; images have sides of at least 8.
    """

    def __init__(
        self,
        *,
        channels: int = 64,
        image_channels: int = 3,
        normalisation: Normalisation = "none",
        lipschitz: Lipschitz = "none",
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchCritic(
                channels=channels,
                image_channels=image_channels,
                normalisation=normalisation,
                lipschitz=lipschitz,
            )
            for _ in range(2)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """[(B, 1, H/4, W/4), (B, 1, H/8, W/8)], rounded down, for (B, image_channels, H, W)."""
        fine, coarse = self.scales
        return [fine(images), coarse(F.avg_pool2d(images, 2))]
