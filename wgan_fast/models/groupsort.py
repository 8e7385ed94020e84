"""GroupSort, the activation that keeps a gradient's norm; MaxMin is GroupSort in pairs.

Anil, Lucas and Grosse, 2019, arXiv 1811.05381.
"""

import torch
from torch import Tensor, nn

from wgan_fast.models._checks import require_positive


class GroupSort(nn.Module):
    """Sorts the channels within groups: y = (sort(x₁ ... x_g), sort(x_{g+1} ... x_{2g}), ...).

    Anil et al., 2019 (arXiv 1811.05381). Wherever the numbers of a group differ, the Jacobian is a
    permutation: the activation is 1-Lipschitz in every ℓp norm and, unlike ReLU, passes a gradient
    on with its whole norm. ``group_size=2`` is MaxMin, (min(a, b), max(a, b)); the full width is
    FullSort. Piecewise linear, without parameters.

    Args:
        group_size: g, numbers in a group.

    Shape:
        ``(B, C, ...)`` to the same, groups along C, the second axis, which g must divide.

    Raises:
        ValueError: ``group_size`` is below 1, or does not divide the channels.
        TypeError: ``group_size`` is not an int.
    """

    def __init__(self, group_size: int = 2) -> None:
        super().__init__()
        require_positive(group_size=group_size)
        self.group_size = group_size

    def forward(self, features: Tensor) -> Tensor:
        """The same numbers, sorted within groups of channels; differentiable as often as wanted."""
        if features.ndim < 2 or features.shape[1] % self.group_size:
            raise ValueError(
                f"features: expected shape (B, C, ...) with C a multiple of {self.group_size}, got "
                f"{tuple(features.shape)}"
            )
        groups = features.unflatten(1, (-1, self.group_size))
        if self.group_size == 2:  # a sort of two numbers needs no sort
            one, other = groups.unbind(2)
            ordered = torch.stack((torch.minimum(one, other), torch.maximum(one, other)), 2)
        else:
            ordered = groups.sort(2).values
        return ordered.flatten(1, 2)

    def extra_repr(self) -> str:
        """The group's size."""
        return f"group_size={self.group_size}"
