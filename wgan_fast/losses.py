"""The critic's objective as a module, for DistributedDataParallel and for whoever likes modules."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from wgan_fast.functional import critic_loss
from wgan_fast.objectives import Objective


class CriticLoss(nn.Module):
    """E f(fake) − E f(real) + λ E φ(‖∇f(x̂)‖₂) of a critic that it holds: :func:`critic_loss`.

    Gulrajani et al., 2017 (arXiv 1704.00028). One call is one ordinary first-order backward, so
    ``DistributedDataParallel(CriticLoss(critic))`` averages the gradients of the whole objective,
    the penalty's among them, which wrapping the critic itself does not do for a double backward.

    Args:
        critic: callable from ``(B, ...)`` to one score per sample; a module's parameters become
            this module's.
        weight: λ.
        target: the norm at which the penalty is zero.
        sided: ``"two"`` or ``"one"``.
        at: where the gradient is penalised: ``"mix"``, ``"real"``, ``"fake"`` or ``"both"``.
        objective: ``"wasserstein"``, ``"hinge"``, ``"nonsaturating"``, ``"relativistic"``, or a
            function of the real and the fake scores; a pickle needs one that can be imported.
        drift: factor of E f(real)².
        backend: ``"auto"``, ``"explicit"``, ``"autograd"`` or ``"first_order"``.
        chunk_size: take the batch in slices of so many samples.

    Shape:
        ``real`` and ``fake`` are ``(B, ...)``; the result is a scalar.
    """

    def __init__(
        self,
        critic: Callable[[Tensor], Tensor],
        *,
        weight: float = 10.0,
        target: float = 1.0,
        sided: str = "two",
        at: str = "mix",
        objective: str | Objective = "wasserstein",
        drift: float = 0.0,
        backend: str = "auto",
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        self.critic = critic
        self.options: dict[str, Any] = {
            "weight": weight,
            "target": target,
            "sided": sided,
            "at": at,
            "objective": objective,
            "drift": drift,
            "backend": backend,
            "chunk_size": chunk_size,
        }

    def forward(self, real: Tensor, fake: Tensor, alpha: Tensor | None = None) -> Tensor:
        """The loss; raises as :func:`critic_loss` does."""
        return critic_loss(self.critic, real, fake, alpha=alpha, **self.options)

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
