"""φ(n) = |n − target|^power, or max(0, n − target)^power, and its derivatives."""

from typing import NamedTuple

import torch
from torch import Tensor


class Phi(NamedTuple):
    """The penalty of a gradient norm; every function maps norms ``(B,)`` to numbers ``(B,)``."""

    target: float
    one_sided: bool
    power: float

    @property
    def is_even(self) -> bool:
        """Whether φ is an even power of n: a polynomial in the gradient, if n is its ℓ2 norm."""
        return self.target == 0 and self.power % 2 == 0

    def _excess(self, norm: Tensor) -> Tensor:
        excess = norm - self.target
        return excess.clamp(min=0) if self.one_sided else excess

    def value(self, norm: Tensor) -> Tensor:
        """φ(n)."""
        excess = self._excess(norm)
        return excess**2 if self.power == 2 else _raised(excess, self.power)

    def slope(self, norm: Tensor) -> Tensor:
        """φ'(n); 0 at the target."""
        excess = self._excess(norm)
        if self.power == 2:
            return 2 * excess
        return self.power * _raised(excess, self.power - 1) * excess.sign()

    def curvature(self, norm: Tensor) -> Tensor:
        """φ''(n); 0 where it is infinite or φ is flat."""
        excess = self._excess(norm)
        factor = self.power * (self.power - 1)
        if self.power == 2:
            bent = torch.full_like(norm, factor)
        else:
            # A NaN norm stays NaN: only a true zero is taken out.
            bent = torch.where(excess == 0, 0, factor * excess.abs() ** (self.power - 2))
        return torch.where(norm <= self.target, 0, bent) if self.one_sided else bent


def _raised(excess: Tensor, exponent: float) -> Tensor:
    """|excess|^exponent; derivatives that are infinite at 0 count as 0 there."""
    if exponent % 1 == 0:
        return excess.abs() ** exponent
    zero = excess == 0
    # Both branches of a where are differentiated: the power must be finite in the unused.
    return torch.where(zero, 0, torch.where(zero, 1, excess.abs()) ** exponent)
