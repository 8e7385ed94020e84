"""A generator of images together with their labels, and a critic of such pairs."""

from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast.models._checks import require_positive
from wgan_fast.models.spectral import Lipschitz, constrain

_HIDDEN_DIM = 64


class PairGenerator(nn.Module):
    """z to (images, rows of probabilities): the label is made first, and the image with it.

    Args:
        generator: from ``(B, latent_dim + classes)`` to images.
        latent_dim: size of z.
        classes: how many labels there are.

    Raises:
        ValueError: a size is below 1.
        TypeError: a size is not an int.
    """

    def __init__(self, generator: nn.Module, latent_dim: int, classes: int) -> None:
        super().__init__()
        require_positive(latent_dim=latent_dim, classes=classes)
        self.generator = generator
        self.label = nn.Sequential(
            nn.Linear(latent_dim, _HIDDEN_DIM), nn.ReLU(), nn.Linear(_HIDDEN_DIM, classes)
        )

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Images and (B, classes) for z of shape (B, latent_dim)."""
        label = self.label(z).softmax(1)
        return self.generator(torch.cat([z, label], 1)), label


class PairCritic(nn.Module):
    """(images, rows) to scores: an image that is linear in the row is one more channel.

    Goes with samples of several tensors, see ``inputs=`` of :func:`wgan_fast.critic_loss` and
    :class:`wgan_fast.CriticLoop`.

    Args:
        critic: of images with one channel more than those to come.
        classes: numbers in a row.
        image_size: S, of images (B, C, S, S).
        lipschitz: ``"none"``, or ``"spectral"``: the norm of the map from row to image is 1.

    Raises:
        ValueError: a size is below 1, or the constraint is not offered.
        TypeError: a size is not an int.
    """

    def __init__(
        self, critic: nn.Module, classes: int, image_size: int, lipschitz: Lipschitz = "none"
    ) -> None:
        super().__init__()
        require_positive(classes=classes, image_size=image_size)
        self.image_size = image_size
        self.channel = nn.Linear(classes, image_size**2, bias=False)
        constrain(self.channel, lipschitz)
        self.critic = critic

    def forward(self, pair: tuple[Tensor, Tensor]) -> Any:
        """What the critic makes of images (B, C, S, S) and rows (B, classes)."""
        images, rows = pair
        channel = self.channel(rows).reshape(-1, 1, self.image_size, self.image_size)
        return self.critic(torch.cat([images, channel], 1))
