"""What a penalised critic loss is made of, in one value that the backends hand on."""

from typing import NamedTuple

from torch import Tensor

from wgan_fast.objectives import Objective, wasserstein

AT = ("mix", "real", "fake", "both")


class LossSettings(NamedTuple):
    """L(f(real), f(fake)) + weight Σ E φ(‖∇f‖) + drift E f(real)²."""

    weight: float | Tensor
    """λ; a tensor, 0-dim, where it is to be an input of a traced step."""
    target: float
    """The norm at which φ is zero."""
    one_sided: bool
    """φ(n) = max(0, n − target)² in place of (n − target)²."""
    drift: float
    """Factor of ProGAN's drift term."""
    at: str = "mix"
    """Where the gradient is penalised: one of AT; "both" adds the means at real and at fake."""
    objective: Objective = wasserstein
    """L."""

    @property
    def uniform(self) -> bool:
        """Whether every sample's score enters the loss with the same known weight, but its sign."""
        return self.objective is wasserstein and not self.drift
