"""Fully connected generator and critic, those of the 2-D toys in the WGAN-GP paper.

Gulrajani et al. 2017, arXiv 1704.00028: three hidden layers of 512 ReLUs on both sides, He
initialisation in the hidden layers, Glorot in the last one, biases zero.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from wgan_fast.models._checks import require_positive, require_shape
from wgan_fast.models.spectral import Lipschitz, constrain


def _layers(in_features: int, hidden_dim: int, hidden_layers: int, out_features: int) -> nn.Module:
    widths = [in_features] + [hidden_dim] * hidden_layers
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        linear = nn.Linear(width, next_width)
        nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    last = nn.Linear(widths[-1], out_features)
    nn.init.xavier_uniform_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


class MLPGenerator(nn.Module):
    """z of shape (B, latent_dim) to samples of shape (B, out_features), unbounded.

    The output has z's dtype and device, which must be the parameters'. Differentiable as often as
    wanted with respect to z and to the parameters.

    Args:
        latent_dim: size of z.
        out_features: size of one sample.
        hidden_dim: width of every hidden layer.
        hidden_layers: how many of them.

    Raises:
        ValueError: a size is below 1, or z has another shape.
        TypeError: a size is not an int.
    """

    def __init__(
        self, latent_dim: int, out_features: int, hidden_dim: int = 512, hidden_layers: int = 3
    ) -> None:
        super().__init__()
        require_positive(
            latent_dim=latent_dim,
            out_features=out_features,
            hidden_dim=hidden_dim,
            hidden_layers=hidden_layers,
        )
        self.latent_dim = latent_dim
        self.layers = _layers(latent_dim, hidden_dim, hidden_layers, out_features)

    def forward(self, z: Tensor) -> Tensor:
        """Samples of shape (B, out_features) for z of shape (B, latent_dim)."""
        require_shape("z", z, (self.latent_dim,))
        samples: Tensor = self.layers(z)
        return samples


class MLPCritic(nn.Module):
    """Samples to one score each, shape (B,), a piecewise-linear function of its input.

    Samples of any shape (B, ...) with ``in_features`` numbers each are flattened first. The score
    has their dtype and device, which must be the parameters'. Being piecewise linear, the critic
    has second derivatives with respect to its input that are zero wherever they exist.

    Args:
        in_features: numbers in one sample.
        hidden_dim: width of every hidden layer.
        hidden_layers: how many of them.
        lipschitz: ``"none"``, or ``"spectral"``: every weight divided by its largest singular value
            (Miyato et al., 2018, arXiv 1802.05957), so that the score is 1-Lipschitz in ℓ2 as far
            as one power iteration per call in training mode, which moves buffers, finds that value.

    Raises:
        ValueError: a size is below 1, the constraint is not offered, or the samples hold another
            number of features.
        TypeError: a size is not an int.
    """

    def __init__(
        self,
        in_features: int,
        hidden_dim: int = 512,
        hidden_layers: int = 3,
        lipschitz: Lipschitz = "none",
    ) -> None:
        super().__init__()
        require_positive(
            in_features=in_features, hidden_dim=hidden_dim, hidden_layers=hidden_layers
        )
        self.in_features = in_features
        self.layers = _layers(in_features, hidden_dim, hidden_layers, 1)
        constrain(self, lipschitz)

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
