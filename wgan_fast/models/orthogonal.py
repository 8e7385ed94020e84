"""Linear maps whose weights are orthogonal by construction, and so 1-Lipschitz in ℓ2.

A parametrisation of ``torch.nn.utils.parametrize``: W = Q of the QR decomposition of a free matrix,
with R's diagonal made positive, which makes Q unique and continuous. ``torch.nn.utils``' own
``orthogonal`` parametrises the same set through a matrix exponential or a Cayley map of the larger
side squared, or through Householder reflections one by one; QR costs a product or two of the
weight's own size.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.utils import parametrize

from wgan_fast.models._checks import require_positive


class Orthonormal(nn.Module):
    """A free matrix (n, k) to one with orthonormal columns, or rows where there are fewer.

    Gram and Schmidt's, by Householder reflections: float32 and float64 to rounding, differentiable
    as often as wanted where the matrix has full rank.
    """

    def forward(self, free: Tensor) -> Tensor:
        """WᵀW = I for n ≥ k, else W Wᵀ = I."""
        wide = free.shape[0] < free.shape[1]
        q, r = torch.linalg.qr(free.mT if wide else free)
        q = q * r.detach().diagonal().sign()
        return q.mT if wide else q


def orthogonal_linear(in_features: int, out_features: int) -> nn.Linear:
    """A ``nn.Linear`` with an orthogonal weight, ‖W‖₂ = 1, drawn uniformly, and bias zero."""
    linear = nn.Linear(in_features, out_features)
    nn.init.orthogonal_(linear.weight)
    nn.init.zeros_(linear.bias)
    parametrize.register_parametrization(linear, "weight", Orthonormal())
    return linear


class OrthogonalConv2d(nn.Module):
    """A convolution with ‖conv(x) − conv(y)‖₂ ≤ ‖x − y‖₂, by an orthogonal flattened kernel.

    A convolution without its bias is W P x: P lays the k×k patches side by side, and W, the kernel
    as a matrix (out, in·k²), is applied to each. For orthogonal W, ‖W‖₂ = 1; and ‖P‖₂² is how many
    patches a pixel lies in at most, which is ⌈k/stride⌉ squared. So the output is divided by
    ⌈k/stride⌉, and the whole has norm at most 1. Where patches do not overlap (k = stride) nothing
    is divided; if W is then no taller than wide, a gradient's norm is kept exactly.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: k, both ways.
        stride: of the patches, at most k.
        padding: zeros around the input, which change no norm.

    Shape:
        ``(B, in_channels, H, W)`` to ``(B, out_channels, H', W')``.

    Raises:
        ValueError: a size is below 1, or the stride above k.
        TypeError: a size is not an int.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        require_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
        )
        if stride > kernel_size:
            raise ValueError(f"stride: expected at most kernel_size={kernel_size}, got {stride}")
        self.kernel_shape = (in_channels, kernel_size, kernel_size)
        self.stride, self.padding = stride, padding
        self.overlap = -(-kernel_size // stride)
        self.flat = orthogonal_linear(in_channels * kernel_size**2, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """The convolution, its norm divided by the overlap of the patches."""
        kernel = self.flat.weight.unflatten(1, self.kernel_shape) / self.overlap
        return conv2d(features, kernel, self.flat.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Shape of a kernel, stride, padding."""
        return f"{self.kernel_shape}, stride={self.stride}, padding={self.padding}"
