"""What a penalised critic loss is made of, in one value that the backends hand on."""

from typing import NamedTuple


class LossSettings(NamedTuple):
    """E f(fake) − E f(real) + weight E φ(‖∇f(x̂)‖) + drift E f(real)²."""

    weight: float
    """λ."""
    target: float
    """The norm at which φ is zero."""
    one_sided: bool
    """φ(n) = max(0, n − target)² in place of (n − target)²."""
    drift: float
    """Factor of ProGAN's drift term."""
