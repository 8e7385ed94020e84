"""The ways to bound a critic's slope: which objective each goes with, and its own settings."""

from typing import Any, Literal

from wgan_fast.penalties import NAMED
from wgan_fast.training.errors import ConfigError

Objective = Literal["dcgan", "wgan", "wgan-gp"]
Lipschitz = Literal[
    "clip", "gp", "lp", "zero", "r1", "r2", "r1+r2", "dragan", "div", "max",
    "banach-1", "banach-2", "banach-inf", "adaptive", "sn", "ortho", "groupsort", "none",
]  # fmt: skip

WITHOUT_PENALTY = ("clip", "sn", "ortho", "groupsort", "none")
_OF_OBJECTIVE: dict[str, Lipschitz] = {"dcgan": "none", "wgan": "clip", "wgan-gp": "gp"}
# A logit has no weights to clip for, and WGAN-div's divergence is that of the Wasserstein loss.
_NOT_WITH_CROSS_ENTROPY = ("clip", "div")

# The WGAN-GP paper's toy code takes a hundredth of its λ; so do the methods close to it.
_ON_TOYS = {
    "gp": 0.1, "lp": 0.1, "dragan": 0.1, "max": 0.1,
    "banach-1": 0.1, "banach-2": 0.1, "banach-inf": 0.1,
}  # fmt: skip
_ORTHO_WEIGHT = 1.0


def objective_of(lipschitz: Lipschitz | None) -> Objective:
    """The objective of whoever names a method alone: the Wasserstein loss, penalised or not."""
    return "wgan" if lipschitz in WITHOUT_PENALTY else "wgan-gp"


def method_of(objective: Objective) -> Lipschitz:
    """The method of an objective's own paper."""
    return _OF_OBJECTIVE[objective]


def method_settings(objective: Objective, lipschitz: Lipschitz, is_2d: bool) -> dict[str, Any]:
    """What a method's paper, or a trial of ours, sets otherwise than the objective's paper.

    - Penalties: each paper's λ, see :data:`wgan_fast.penalties.NAMED`; on the toys those around
      gp's a hundredth, as in the WGAN-GP paper's toy code. That of adaptive begins at gp's 10.
    - sn: Miyato et al. 2018, arXiv 1802.05957: Adam 2e-4, β = (0, 0.9), five critic steps.
    - ortho and groupsort: Adam with WGAN-GP's β. Their papers train no such WGAN; β = 1 of the
      regulariser and the critic's learning rate of 1e-3 are ours.
    """
    settings: dict[str, Any] = {}
    if lipschitz in NAMED:
        settings["penalty_weight"] = NAMED[lipschitz].weight
        if is_2d and lipschitz in _ON_TOYS:
            settings["penalty_weight"] = _ON_TOYS[lipschitz]
    if lipschitz == "adaptive":
        settings["penalty_weight"] = NAMED["gp"].weight
    if lipschitz == "ortho":
        settings["penalty_weight"] = _ORTHO_WEIGHT
    if objective == "wgan" and lipschitz not in ("clip", "none"):
        # RMSprop's small steps are those of clipped weights.
        rate = 2e-4 if lipschitz == "sn" else 1e-4
        settings.update(beta1=0.5 if is_2d else 0.0, beta2=0.9)
        settings.update(critic_learning_rate=rate, generator_learning_rate=rate)
        if lipschitz == "groupsort":
            settings["critic_learning_rate"] = 1e-3
    if objective == "dcgan" and lipschitz not in ("none", "ortho"):
        settings["normalisation"] = "none"
    return settings


def require_match(objective: Objective, lipschitz: Lipschitz) -> None:
    """Raises where a method does not go with an objective."""
    if objective == "dcgan":
        wrong = lipschitz in _NOT_WITH_CROSS_ENTROPY
    else:
        wrong = objective_of(lipschitz) != objective
    if wrong:
        raise ConfigError(
            f"lipschitz: {lipschitz} does not go with objective {objective}; expected objective "
            f"{objective_of(lipschitz)}, whose loss is the Wasserstein one"
        )
