"""``AdaptiveWeight``: a λ that follows the gradient norms on the device, without a wait for it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast.arguments import check_number, describe

LIMITS = (0.1, 1000.0)
"""The least and the largest λ, if no others are given."""


class AdaptiveWeight(nn.Module):
    """λ controlled towards a mean gradient norm: log λ ← log λ + rate · (n̄ − target), in bounds.

    This project's own: papers that adapt λ do it each in another way, and no formula is canonical.
    Steeper than the target raises λ, flatter lowers it, by at most a factor of e^±rate per step:
    n̄ − target counts as no more than ±1, and as 0 where it is not a number. λ is a buffer, so that
    ``state_dict`` holds it, ``to`` moves it, and an update writes it where it lies; no update
    waits for the device, and CUDA graphs may capture one. It is float32 and stays so whatever the
    module is cast to: a step of e^0.01 would be lost in the rounding of a half type.

    With a zero-centred penalty, which alone never settles at a norm of one's choice, λ finds the
    value at which n̄ is the target. With a two-sided one, λ grows for as long as the critic is
    steeper than the target on average, and shrinks where the objective does not press against the
    penalty.

    Hand it to ``CriticLoss(critic, weight=AdaptiveWeight())``, for which ``penalty="adaptive"`` is
    short, or in the same way to :class:`CriticLoop`, or use it in a loop of your own::

        loss, stats = critic_loss(critic, real, fake, weight=adaptive.weight, return_stats=True)
        loss.backward()
        optimizer.step()
        adaptive.update(stats.gradient_norm)

    Args:
        initial: λ of the first step.
        target: the mean gradient norm to reach; of the penalty's own kind of norm.
        rate: of log λ per step and unit of norm.
        limits: the least and the largest λ.

    Raises:
        TypeError, ValueError: an argument is no number, or not within what it must be.
    """

    weight: Tensor
    """λ, 0-dim, float32."""

    def __init__(
        self,
        initial: float = 10.0,
        *,
        target: float = 1.0,
        rate: float = 0.01,
        limits: tuple[float, float] = LIMITS,
    ) -> None:
        super().__init__()
        self.target = check_number("target", target)
        self.rate = check_number("rate", rate, positive=True)
        try:
            low, high = limits
        except (TypeError, ValueError) as error:
            raise TypeError(f"limits: expected two numbers, got {describe(limits)}") from error
        self.limits = (
            check_number("limits", low, positive=True),
            check_number("limits", high, positive=True),
        )
        initial = check_number("initial", initial, positive=True)
        if not low <= initial <= high:
            raise ValueError(
                f"initial, limits: expected least ≤ initial ≤ largest, got {initial!r} and {limits}"
            )
        self.register_buffer("weight", torch.tensor(initial, dtype=torch.float32))

    @torch.no_grad()
    def update(self, gradient_norm: Any) -> None:
        """One step of λ, in place.

        Args:
            gradient_norm: the norms of a batch, of any shape, or their mean.

        Raises:
            TypeError: it is no floating point tensor.
        """
        if not isinstance(gradient_norm, Tensor) or not gradient_norm.is_floating_point():
            raise TypeError(
                f"gradient_norm: expected a floating point tensor, got {describe(gradient_norm)}"
            )
        wide = torch.promote_types(gradient_norm.dtype, self.weight.dtype)
        norm = gradient_norm.to(wide).mean()
        excess = (norm - self.target).nan_to_num(nan=0.0).clamp(-1, 1)
        self.weight.copy_((self.weight * (self.rate * excess).exp()).clamp(*self.limits))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AdaptiveWeight":
        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        super()._apply(moved, recurse)
        return self

    def extra_repr(self) -> str:
        """The settings."""
        return f"target={self.target}, rate={self.rate}, limits={self.limits}"


def with_adaptive(penalty: Any, weight: Any, **apart: Any) -> tuple[Any, Any]:
    """(penalty, weight) where ``penalty="adaptive"`` is spelt out: gp with an AdaptiveWeight.

    Raises:
        ValueError: it comes with a λ that is a number, or with a setting ``apart`` that gp has.
    """
    if not isinstance(penalty, str) or penalty != "adaptive":
        return penalty, weight
    for name, value in apart.items():
        if value is not None:
            raise ValueError(
                f'penalty, {name}: "adaptive" has its own {name}, got {name}={value!r}; take '
                f"penalty=Penalty({name}={value!r}) with weight=AdaptiveWeight()"
            )
    weight = AdaptiveWeight() if weight is None else weight
    if not isinstance(weight, AdaptiveWeight):
        raise ValueError(
            f'penalty, weight: "adaptive" has its own λ, got weight={weight!r}; take '
            "weight=AdaptiveWeight(initial)"
        )
    return "gp", weight
