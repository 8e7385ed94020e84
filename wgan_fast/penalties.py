"""The penalty family: what is penalised, where it is sampled, and the settings of a critic loss.

Every member is one formula with other numbers. With nᵢ = ‖∇f(xᵢ)‖, the dual of an ℓp norm,

    P = mean or max over i of φ(nᵢ),   φ(n) = |n − target|^power,   or max(0, n − target)^power,

at points xᵢ that are real, fake, between both, or around the real ones. So one implementation
serves them all: the operator that takes input gradients to norms, φ and the direction φ' ∂n/∂g.
``docs/penalties.md`` has each member's formula, paper, use, and the plot of its φ.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from wgan_fast import ops
from wgan_fast.arguments import check_choice, check_number, describe
from wgan_fast.objectives import NAMED as OBJECTIVES
from wgan_fast.objectives import Objective, wasserstein
from wgan_fast.ops.rows import per_sample

AT = ("mix", "real", "fake", "both", "dragan")
BETWEEN = ("mix", "dragan")
"""Points that are no samples of the loss."""
SIDES = ("two", "one")
REDUCTIONS = ("mean", "max")
DUAL = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}
"""The exponent of the norm that is dual to ℓp: 1/p + 1/q = 1."""


@dataclass(frozen=True)
class Penalty:
    """A gradient penalty: P = (1/B) Σ φ(nᵢ), φ(n) = abs(n − target)^power, nᵢ = ‖∇f(xᵢ)‖.

    A value to hand to ``penalty=`` of :func:`critic_loss`, :func:`gradient_penalty`,
    :class:`CriticLoss`, :func:`freeze` and :class:`CriticLoop`; ``Penalty.named("lp")`` is the
    published one of that name, ``dataclasses.replace(Penalty.named("lp"), weight=5.0)`` a change of
    it. The defaults are WGAN-GP's (Gulrajani et al., 2017, arXiv 1704.00028).

    Args:
        target: the norm at which φ is zero, ≥ 0.
        sided: ``"two"``, or ``"one"``: φ(n) = max(0, n − target)^power.
        power: of φ, ≥ 1. With 1, φ has a kink at the target, where its derivative counts as 0.
        p: 1, 2 or ``math.inf``: samples are measured by ‖x‖ₚ, gradients by the dual norm, which is
            ‖∇f‖∞, ‖∇f‖₂ or ‖∇f‖₁ (Adler and Lunz, 2018, arXiv 1806.06621): f is 1-Lipschitz in
            ‖x‖ₚ where its gradient's dual norm is at most 1. The norms of p = 1 and ∞ have
            kinks: ∂‖g‖₁ is taken as sign(g), 0 where an element is 0; ∂‖g‖∞ as the sign at the
            largest elements, shared among them where there are several.
        at: the points. ``"mix"``: x̂ = α real + (1 − α) fake with one α ~ U(0, 1) per sample;
            ``"real"``; ``"fake"``; ``"both"``, the sum of the penalties at real and at fake; or
            ``"dragan"``: x̂ = real + α s u with s half the standard deviation of all numbers of the
            batch of real samples, u ~ U(0, 1) per element and α ~ U(0, 1) per sample, as in the
            code of Kodali et al., 2017 (arXiv 1705.07215).
        reduction: ``"mean"``; or ``"max"``: P = φ(maxᵢ nᵢ), whose derivative is that of the
            steepest sample, shared among them where several are.
        weight: λ, taken where a loss is not given a ``weight`` of its own. Of a named penalty it is
            its paper's, or its authors' code's, where there is one: 10 of gp and dragan, γ/2 = 5 of
            r1 and r2, k = 2 of div, 1 of max; 10 of the others.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """

    target: float = 1.0
    sided: str = "two"
    power: float = 2.0
    p: float = 2.0
    at: str = "mix"
    reduction: str = "mean"
    weight: float = 10.0

    def __post_init__(self) -> None:
        for name in ("target", "power", "weight"):
            object.__setattr__(self, name, check_number(name, getattr(self, name)))
        if self.power < 1:
            raise ValueError(f"power: expected a number ≥ 1, got {self.power!r}")
        if not isinstance(self.p, (int, float)) or self.p not in DUAL:
            raise ValueError(f"p: expected 1, 2 or math.inf, got {describe(self.p)}")
        check_choice("sided", self.sided, SIDES)
        check_choice("at", self.at, AT)
        check_choice("reduction", self.reduction, REDUCTIONS)

    @staticmethod
    def named(name: str) -> "Penalty":
        """The published penalty of a name: one of ``wgan_fast.penalties.NAMED``.

        Raises:
            ValueError: there is none of that name.
        """
        return NAMED[check_choice("penalty", name, tuple(NAMED))]

    @property
    def between(self) -> bool:
        """Whether the points are others than the samples of the loss."""
        return self.at in BETWEEN

    @property
    def parts(self) -> int:
        """How many penalties are added: that at real and that at fake, or one."""
        return 2 if self.at == "both" else 1

    def of(
        self, gradient: Tensor, parts: int = 1, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(norms, penalties, direction) of input gradients ``(B, ...)``, times a mask like them.

        The mean of the penalties is P, and the direction its derivative in the gradient; of
        ``parts`` equal parts of the batch, the mean of their P. Norms and penalties can be
        differentiated as the operator can.
        """
        dual = DUAL[self.p]
        norms, penalties, direction = ops.gradient_norm_penalty(
            gradient, self.target, self.sided == "one", power=self.power, p=dual, mask=mask
        )
        if self.reduction == "max":
            chosen = steepest(norms.detach(), parts)
            penalties = penalties * chosen
            direction = direction * per_sample(chosen, direction).to(direction.dtype)
        return norms, penalties, direction


def steepest(norms: Tensor, parts: int) -> Tensor:
    """Factors ``(B,)`` by which a mean over samples becomes the value at the steepest of a part."""
    by_part = norms.view(parts, -1)
    hit = (by_part == by_part.amax(dim=1, keepdim=True)).to(norms.dtype)
    return (hit * (by_part.shape[1] / hit.sum(dim=1, keepdim=True))).view(-1)


NAMED: dict[str, Penalty] = {
    "gp": Penalty(),
    "lp": Penalty(sided="one"),
    "zero": Penalty(target=0.0),
    "r1": Penalty(target=0.0, at="real", weight=5.0),
    "r2": Penalty(target=0.0, at="fake", weight=5.0),
    "r1+r2": Penalty(target=0.0, at="both", weight=5.0),
    "dragan": Penalty(at="dragan"),
    "div": Penalty(target=0.0, power=6.0, weight=2.0),
    "max": Penalty(target=0.0, reduction="max", weight=1.0),
    "banach-1": Penalty(p=1.0),
    "banach-2": Penalty(p=2.0),
    "banach-inf": Penalty(p=math.inf),
}
"""The published penalties by name."""


def check_penalty(penalty: Any, **apart: Any) -> Penalty:
    """The penalty of that name, or the value itself; of single settings if there is neither.

    Raises:
        TypeError, ValueError: it is neither, or comes with one of the settings that it has itself.
    """
    if penalty == "adaptive":
        raise ValueError(
            'penalty: "adaptive" keeps λ from call to call; take CriticLoss(critic, '
            'penalty="adaptive"), CriticLoop, or wgan_fast.AdaptiveWeight in a loop of your own'
        )
    given = {name: value for name, value in apart.items() if value is not None}
    if penalty is None:
        return Penalty(**given) if given else NAMED["gp"]
    if given:
        name, value = next(iter(given.items()))
        raise ValueError(
            f"penalty, {name}: expected one of them, got penalty={penalty!r} and {name}={value!r}; "
            f"a penalty has its own {name}: dataclasses.replace(penalty, {name}={value!r})"
        )
    if isinstance(penalty, str):
        return Penalty.named(penalty)
    if not isinstance(penalty, Penalty):
        raise TypeError(f"penalty: expected a name or a wgan_fast.Penalty, got {describe(penalty)}")
    return penalty


def check_weight(weight: Any, penalty: Penalty) -> float | Tensor:
    """λ: a number ≥ 0, a 0-dim tensor, or the penalty's own."""
    return penalty.weight if weight is None else check_factor(weight)


def check_factor(weight: Any) -> float | Tensor:
    """λ where a penalty's own is not applied: a number ≥ 0 or a 0-dim tensor."""
    if weight is None:
        raise TypeError(
            "weight: expected a number or a 0-dim floating tensor, got None; the penalty's own "
            "weight is not applied here: give it, as weight=penalty.weight, or leave weight out "
            "for 1"
        )
    if isinstance(weight, Tensor):
        if weight.dim() or not weight.is_floating_point():
            raise TypeError(
                f"weight: expected a number or a 0-dim floating tensor, got {describe(weight)}"
            )
        return weight.detach()
    return check_number("weight", weight)


def weighted(penalty: Tensor, weight: float | Tensor) -> Tensor:
    """λ P, in the type of P."""
    if isinstance(weight, Tensor):
        return weight.to(penalty.dtype) * penalty
    return penalty if weight == 1.0 else weight * penalty


def check_maximum(penalty: Penalty, chunk_size: int | None, reduction: str) -> None:
    """A maximum over the batch is no sum over its samples or slices."""
    if penalty.reduction != "max":
        return
    if chunk_size is not None:
        raise ValueError(
            "chunk_size: expected None with a penalty that is the maximum over the whole batch, "
            f"got {chunk_size}"
        )
    if reduction != "mean":
        raise ValueError(
            'reduction: expected "mean" with a penalty that is the maximum over the batch, got '
            f"{reduction!r}"
        )


class LossSettings(NamedTuple):
    """L(f(real), f(fake)) + weight P + drift E f(real)²."""

    weight: float | Tensor
    """λ; a tensor, 0-dim, where it is to be an input of a traced step."""
    penalty: Penalty
    """P: φ, its norm, its points."""
    drift: float
    """Factor of ProGAN's drift term."""
    objective: Objective = wasserstein
    """L."""

    @property
    def at(self) -> str:
        """Where the gradient is penalised: one of AT."""
        return self.penalty.at

    @property
    def uniform(self) -> bool:
        """Whether every sample's score enters the loss with the same known weight, but its sign."""
        return self.objective is wasserstein and not self.drift

    @property
    def averages(self) -> bool:
        """Whether all of it is known to be means over samples.

        An objective of the caller's own may not be one; a maximum is none.
        """
        of_one = getattr(self.objective, "of_one", self.objective)
        return of_one in OBJECTIVES.values() and self.penalty.reduction == "mean"
