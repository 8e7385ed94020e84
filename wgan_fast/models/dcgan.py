"""The DCGAN generator and critic for images of 16, 28, 32 or 64 pixels.

Radford, Metz and Chintala 2016, arXiv 1511.06434: strided and transposed 4×4 convolutions instead
of pooling, BatchNorm and ReLU in the generator, LeakyReLU(0.2) in the discriminator, tanh at the
end, every convolution drawn from N(0, 0.02²).

Both halve or double the resolution until a 4×4 map is left (7×7 for 28 pixels), and the number of
feature maps doubles where the resolution halves: ``channels`` at half the image's resolution, then
2·channels, 4·channels, ...
"""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn

from wgan_fast.models._checks import require_positive, require_shape
from wgan_fast.models.spectral import Lipschitz, constrain

Normalisation = Literal["none", "layer", "instance", "batch"]

# image size: (size of the smallest map, number of halvings down to it)
_GEOMETRY = {16: (4, 2), 28: (7, 2), 32: (4, 3), 64: (4, 4)}
IMAGE_SIZES = tuple(_GEOMETRY)

# The paper's layer normalisation of a feature map takes the mean over channels and both axes of one
# sample, with a gain and a bias per channel: GroupNorm with one group.
_NORMALISATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "batch": nn.BatchNorm2d,
}


def geometry(image_size: int) -> tuple[int, int]:
    """(size of the smallest map, number of halvings down to it); raises for other sizes."""
    if image_size not in _GEOMETRY:
        sizes = ", ".join(map(str, IMAGE_SIZES))
        raise ValueError(f"image_size: expected one of {sizes}, got {image_size!r}")
    return _GEOMETRY[image_size]


def halving_layers(
    image_channels: int, channels: int, halvings: int, normalisation: Normalisation
) -> list[nn.Module]:
    """The critic's layers but for the last; each convolution halves the map and doubles the width.

    Raises:
        ValueError: the normalisation is not offered.
    """
    if normalisation not in _NORMALISATIONS:
        names = ", ".join(map(repr, get_args(Normalisation)))
        raise ValueError(f"normalisation: expected one of {names}, got {normalisation!r}")
    layers: list[nn.Module] = [
        nn.Conv2d(image_channels, channels, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
    ]
    # Subtracting each channel's own mean would cancel a bias.
    bias = normalisation in ("none", "layer")
    for width in (channels * 2**level for level in range(halvings - 1)):
        layers += [
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=bias),
            _NORMALISATIONS[normalisation](2 * width),
            nn.LeakyReLU(0.2),
        ]
    return layers


def initialise(module: nn.Module) -> None:
    """The paper's: N(0, 0.02²), biases zero, the gains of BatchNorm around 1."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class DCGANGenerator(nn.Module):
    """z of shape (B, latent_dim) to images (B, image_channels, S, S) in (-1, 1).

    BatchNorm makes the samples of one batch depend on each other in training mode, and uses the
    running statistics in eval mode. The output has z's dtype and device, which must be the
    parameters'.

    Args:
        image_size: S; 16, 28, 32 or 64.
        latent_dim: size of z; the DCGAN paper takes 100, the WGAN-GP code 128.
        channels: feature maps of the last hidden layer; each layer before has twice as many.
        image_channels: 1 for grey, 3 for colour.

    Raises:
        ValueError: an image size that is not offered, a size below 1, or z has another shape.
        TypeError: a size is not an int.
    """

    def __init__(
        self,
        image_size: int,
        *,
        latent_dim: int = 100,
        channels: int = 64,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        smallest, doublings = geometry(image_size)
        require_positive(latent_dim=latent_dim, channels=channels, image_channels=image_channels)
        self.latent_dim = latent_dim
        width = channels * 2 ** (doublings - 1)
        layers: list[nn.Module] = [
            # On a 1×1 map this is the paper's "project and reshape".
            nn.ConvTranspose2d(latent_dim, width, smallest, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        for _ in range(doublings - 1):
            layers += [
                nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width // 2),
                nn.ReLU(),
            ]
            width //= 2
        layers += [nn.ConvTranspose2d(width, image_channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, z: Tensor) -> Tensor:
        """Images of shape (B, image_channels, S, S) for z of shape (B, latent_dim)."""
        require_shape("z", z, (self.latent_dim,))
        images: Tensor = self.layers(z[:, :, None, None])
        return images


class DCGANCritic(nn.Module):
    """Images of shape (B, image_channels, S, S) to one score each, shape (B,), unbounded.

    With ``normalisation="none"`` the critic is piecewise linear. ``"layer"`` and ``"instance"``
    look at one sample alone, so a gradient penalty stays what it says; ``"batch"`` does not, and is
    there for DCGAN's own discriminator, whose logit the score then is. As in the paper, the first
    layer and the last one are never normalised.

    Args:
        image_size: S; 16, 28, 32 or 64.
        channels: feature maps of the first layer; each further layer has twice as many.
        image_channels: 1 for grey, 3 for colour.
        normalisation: ``"none"``, ``"layer"`` (over channels and both axes of a sample),
            ``"instance"`` (over both axes) or ``"batch"``.
        lipschitz: ``"none"``, or ``"spectral"``: every convolution's weight W, as a matrix
            (out, in·4²), divided by its largest singular value (Miyato et al., 2018, arXiv
            1802.05957). Without a normalisation the score is then Lipschitz in ℓ2 with constant
            at most 2 for every halving, since a pixel lies in four of a layer's patches. In
            training mode each call moves the singular vectors' buffers by one power iteration.

    Raises:
        ValueError: an image size, normalisation or constraint that is not offered, a size below 1,
            or images of another shape.
        TypeError: a size is not an int.
    """

    def __init__(
        self,
        image_size: int,
        *,
        channels: int = 64,
        image_channels: int = 3,
        normalisation: Normalisation = "none",
        lipschitz: Lipschitz = "none",
    ) -> None:
        super().__init__()
        smallest, halvings = geometry(image_size)
        require_positive(channels=channels, image_channels=image_channels)
        self.image_shape = (image_channels, image_size, image_size)
        layers = halving_layers(image_channels, channels, halvings, normalisation)
        layers += [nn.Conv2d(channels * 2 ** (halvings - 1), 1, smallest), nn.Flatten(0)]
        self.layers = nn.Sequential(*layers)
        self.apply(initialise)
        constrain(self, lipschitz)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of shape (B,) for images of shape (B, image_channels, S, S)."""
        require_shape("images", images, self.image_shape)
        score: Tensor = self.layers(images)
        return score
