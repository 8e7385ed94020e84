"""A generator that fills holes in images, and a critic of what it fills in."""

from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast.models._checks import require_positive
from wgan_fast.models.dcgan import DCGANGenerator, geometry, halving_layers


def with_hole(images: Tensor, hole: Tensor) -> Tensor:
    """Images (B, C, H, W), 0 where ``hole`` (B, 1, H, W) is 1, and the hole as one more channel."""
    return torch.cat([images * (1 - hole), hole], 1)


class InpaintingGenerator(nn.Module):
    """(z, images with holes) to whole images, which differ from the given ones in the hole alone.

    What is to be seen of an image goes through DCGAN's halvings to ``context_dim`` numbers; a
    :class:`DCGANGenerator` makes an image of these and z, of which the hole is taken. Different z
    fill a hole differently.

    Args:
        image_size: S; 16, 28, 32 or 64.
        latent_dim: size of z.
        channels: feature maps of the layer of the highest resolution, on both ways.
        image_channels: 1 for grey, 3 for colour.
        context_dim: size of what is made of an image with its hole.

    Raises:
        ValueError: an image size that is not offered, or a size below 1.
        TypeError: a size is not an int.
    """

    def __init__(
        self,
        image_size: int,
        *,
        latent_dim: int = 100,
        channels: int = 64,
        image_channels: int = 3,
        context_dim: int = 64,
    ) -> None:
        super().__init__()
        smallest, halvings = geometry(image_size)
        require_positive(channels=channels, image_channels=image_channels, context_dim=context_dim)
        widest = channels * 2 ** (halvings - 1)
        # With PyTorch's own initial weights: at DCGAN's small ones, z would drown what is known.
        self.encoder = nn.Sequential(
            *halving_layers(image_channels + 1, channels, halvings, "none"),
            nn.Conv2d(widest, context_dim, smallest),
            nn.Flatten(),
        )
        self.generator = DCGANGenerator(
            image_size,
            latent_dim=latent_dim + context_dim,
            channels=channels,
            image_channels=image_channels,
        )

    def forward(self, z: Tensor, holed: Tensor) -> Tensor:
        """Images (B, C, S, S) for z (B, latent_dim) and what :func:`with_hole` gives."""
        made: Tensor = self.generator(torch.cat([z, self.encoder(holed)], 1))
        known, hole = holed[:, :-1], holed[:, -1:]
        return known + made * hole


class InpaintingCritic(nn.Module):
    """(images, images with holes) to scores: both, and where the holes are, as channels.

    Its penalty counts in the hole alone (Yu et al., 2018, arXiv 1801.07892), by ``mask=`` of
    :func:`wgan_fast.critic_loss` and :class:`wgan_fast.CriticLoop`.

    Args:
        critic: of images with 2·C + 1 channels, where those to come have C.
    """

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, images: Tensor, holed: Tensor) -> Any:
        """What the critic makes of images (B, C, S, S) and of what :func:`with_hole` gives."""
        return self.critic(torch.cat([images, holed], 1))
