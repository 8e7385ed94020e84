"""Critics that are 1-Lipschitz in ℓ2 whatever their parameters are: no penalty, no clipping.

Anil, Lucas and Grosse, 2019, arXiv 1811.05381: orthogonal weights, and an activation that keeps a
gradient's norm. Their critics come close to any 1-Lipschitz function, which ReLU with bounded
weights cannot: it loses some of the gradient's norm at every layer.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from wgan_fast.models._checks import require_positive, require_shape
from wgan_fast.models.dcgan import geometry
from wgan_fast.models.groupsort import GroupSort
from wgan_fast.models.orthogonal import OrthogonalConv2d, orthogonal_linear


class GroupSortMLPCritic(nn.Module):
    """Samples to one score each, shape (B,): |f(x) − f(y)| ≤ ‖x − y‖₂ for every x and y.

    Orthogonal linear layers with GroupSort between them. Each is 1-Lipschitz, so ‖∇f‖ ≤ 1
    everywhere, up to rounding; and where no layer is wider than the one before, ‖∇f‖ = 1.
    Piecewise linear. Samples of any shape (B, ...) are flattened first. Float32 or float64.

    Args:
        in_features: numbers in one sample.
        hidden_dim: width of every hidden layer.
        hidden_layers: how many of them.
        group_size: of GroupSort, which must divide the width; 2 is MaxMin.

    Raises:
        ValueError: a size is below 1, the width is no multiple of the groups', or the samples hold
            another number of features.
        TypeError: a size is not an int.
    """

    def __init__(
        self, in_features: int, hidden_dim: int = 512, hidden_layers: int = 3, group_size: int = 2
    ) -> None:
        super().__init__()
        require_positive(
            in_features=in_features, hidden_dim=hidden_dim, hidden_layers=hidden_layers
        )
        activation = GroupSort(group_size)
        _require_groups("hidden_dim", hidden_dim, group_size)
        self.in_features = in_features
        widths = [in_features] + [hidden_dim] * hidden_layers
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [orthogonal_linear(width, next_width), activation]
        self.layers = nn.Sequential(*layers, orthogonal_linear(widths[-1], 1))

    def forward(self, samples: Tensor) -> Tensor:
        """Scores of shape (B,) for samples of shape (B, ...)."""
        if samples.ndim < 2:
            raise ValueError(
                f"samples: expected a batch of shape (B, ...), got {tuple(samples.shape)}"
            )
        flat = torch.flatten(samples, 1)
        require_shape("samples, flattened", flat, (self.in_features,))
        score: Tensor = self.layers(flat)
        return score.squeeze(1)


class GroupSortConvCritic(nn.Module):
    """Images (B, image_channels, S, S) to one score each: |f(x) − f(y)| ≤ ‖x − y‖₂.

    The DCGAN critic's plan with :class:`OrthogonalConv2d` and GroupSort: maps halve, and their
    number doubles, down to 4×4 (7×7 for 28 pixels), which one last patch scores. Each layer is
    1-Lipschitz, so ‖∇f‖ ≤ 1 everywhere, up to rounding. Its patches are 2×2 and do not overlap, so
    that but for the first layer none of a gradient's norm is lost: overlapping patches would have
    to be scaled down. Piecewise linear. Float32 or float64.

    Args:
        image_size: S; 16, 28, 32 or 64.
        channels: feature maps at half the image's resolution.
        image_channels: 1 for grey, 3 for colour.
        group_size: of GroupSort, which must divide ``channels``; 2 is MaxMin.

    Raises:
        ValueError: an image size that is not offered, a size below 1, channels that are no
            multiple of the groups', or images of another shape.
        TypeError: a size is not an int.
    """

    def __init__(
        self,
        image_size: int,
        *,
        channels: int = 64,
        image_channels: int = 3,
        group_size: int = 2,
    ) -> None:
        super().__init__()
        smallest, halvings = geometry(image_size)
        require_positive(channels=channels, image_channels=image_channels)
        activation = GroupSort(group_size)
        _require_groups("channels", channels, group_size)
        self.image_shape = (image_channels, image_size, image_size)
        widths = [image_channels] + [channels * 2**level for level in range(halvings)]
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [OrthogonalConv2d(width, next_width, 2, stride=2), activation]
        layers += [OrthogonalConv2d(widths[-1], 1, smallest, stride=smallest), nn.Flatten(0)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of shape (B,) for images of shape (B, image_channels, S, S)."""
        require_shape("images", images, self.image_shape)
        score: Tensor = self.layers(images)
        return score


def _require_groups(name: str, width: int, group_size: int) -> None:
    if width % group_size:
        raise ValueError(f"{name}: expected a multiple of group_size={group_size}, got {width}")
