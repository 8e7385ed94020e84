"""Critics that are measured and that :mod:`wgan_fast.models` does not have."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

Normalisation = Callable[[int, int], nn.Module]
"""From a map's channels and its height to the module that normalises it."""


def layer_norm(channels: int, size: int) -> nn.Module:
    """Over the whole map of one sample, as the WGAN-GP paper recommends."""
    return nn.LayerNorm((channels, size, size))


def instance_norm(channels: int, size: int) -> nn.Module:
    """Over each channel of one sample."""
    return nn.InstanceNorm2d(channels, affine=True)


def group_norm(channels: int, size: int) -> nn.Module:
    """Over eight groups of one sample's channels."""
    return nn.GroupNorm(8, channels)


class _FirstBlock(nn.Module):
    """Convolution, ReLU, convolution, mean pool; nothing before the first convolution."""

    def __init__(self, image_channels: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(image_channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(image_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(relu(self.first(x)))
        return avg_pool2d(hidden, 2) + self.shortcut(avg_pool2d(x, 2))


class _Block(nn.Module):
    """Twice norm, ReLU, convolution, on a map of the given height, which ``down`` halves."""

    def __init__(self, channels: int, size: int, norm: Normalisation, *, down: bool) -> None:
        super().__init__()
        self.first_norm, self.second_norm = norm(channels, size), norm(channels, size)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, channels, 1) if down else nn.Identity()
        self.pool = nn.AvgPool2d(2) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(relu(self.first_norm(x)))
        hidden = self.second(relu(self.second_norm(hidden)))
        return self.pool(hidden) + self.pool(self.shortcut(x))


class ResNetCritic(nn.Module):
    """The WGAN-GP paper's critic of CIFAR-10: (B, image_channels, S, S) to (B,).

    Gulrajani et al. 2017, arXiv 1704.00028, appendix C: four residual blocks, the first two of
    which halve the resolution, then ReLU, the mean over the map, and a linear layer.
    """

    def __init__(
        self, norm: Normalisation, channels: int = 32, image_channels: int = 3, image_size: int = 32
    ) -> None:
        super().__init__()
        half, quarter = image_size // 2, image_size // 4
        self.blocks = nn.Sequential(
            _FirstBlock(image_channels, channels),
            _Block(channels, half, norm, down=True),
            _Block(channels, quarter, norm, down=False),
            _Block(channels, quarter, norm, down=False),
        )
        self.score = nn.Linear(channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of shape (B,)."""
        return self.score(relu(self.blocks(images)).mean((2, 3))).squeeze(1)


class _SelfAttention(nn.Module):
    """y = x + γ · attention(x) over all places of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        # The paper starts at 0, where queries and keys have no gradient that could be compared.
        self.gamma = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        weights = torch.bmm(query.transpose(1, 2), key).softmax(2)
        attended = torch.bmm(value, weights.transpose(1, 2)).view_as(x)
        return x + self.gamma * attended


class SelfAttentionCritic(nn.Module):
    """Strided convolutions with self-attention in their midst: (B, 3, 32, 32) to (B,).

    After SAGAN, Zhang et al. 2019, arXiv 1805.08318, without its spectral norm: the penalty is
    what keeps this critic smooth.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            _SelfAttention(2 * channels),
            nn.Conv2d(2 * channels, 4 * channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * channels, 1, 4),
            nn.Flatten(0),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Scores of shape (B,)."""
        return self.layers(images)


class SignalCritic(nn.Module):
    """Three strided 1-D convolutions and a linear layer: (B, signals, length) to (B,)."""

    def __init__(self, signals: int = 4, length: int = 128, channels: int = 32) -> None:
        super().__init__()
        widths = (signals, channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [nn.Conv1d(width, next_width, 5, stride=2, padding=2), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(
            *layers, nn.Flatten(1), nn.Linear(widths[-1] * (length // 8), 1), nn.Flatten(0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores of shape (B,)."""
        return self.layers(x)
