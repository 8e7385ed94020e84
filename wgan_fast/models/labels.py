"""Generators and critics that take labels: a conditional GAN's (Mirza and Osindero, 2014)."""

from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast.models._checks import require_positive


class LabelledGenerator(nn.Module):
    """(z, labels) to samples: each label's row of a table is laid beside z.

    Mirza and Osindero, 2014 (arXiv 1411.1784).

    Args:
        generator: from ``(B, latent_dim + label_dim)`` to samples.
        classes: how many labels there are.
        label_dim: numbers in a row of the table, which is learnt.

    Raises:
        ValueError: a size is below 1.
        TypeError: a size is not an int.
    """

    def __init__(self, generator: nn.Module, classes: int, label_dim: int) -> None:
        super().__init__()
        require_positive(classes=classes, label_dim=label_dim)
        self.table, self.generator = nn.Embedding(classes, label_dim), generator

    def forward(self, z: Tensor, labels: Tensor) -> Any:
        """Samples for z of shape (B, latent_dim) and integer labels of shape (B,)."""
        return self.generator(torch.cat([z, self.table(labels)], 1))


class LabelledCritic(nn.Module):
    """(images, labels) to scores: each label's image, which is learnt, is one more channel.

    Args:
        critic: of images with one channel more than those to come.
        classes: how many labels there are.
        image_size: S, of images (B, C, S, S).

    Raises:
        ValueError: a size is below 1.
        TypeError: a size is not an int.
    """

    def __init__(self, critic: nn.Module, classes: int, image_size: int) -> None:
        super().__init__()
        require_positive(classes=classes, image_size=image_size)
        self.image_size = image_size
        self.table, self.critic = nn.Embedding(classes, image_size**2), critic

    def forward(self, images: Tensor, labels: Tensor) -> Any:
        """What the critic makes of images (B, C, S, S) and integer labels of shape (B,)."""
        channel = self.table(labels).reshape(-1, 1, self.image_size, self.image_size)
        return self.critic(torch.cat([images, channel], 1))
