"""The checks on the settings of a run: each error names the setting, what came and what may be."""

import math
from typing import TYPE_CHECKING, get_args

import torch

from wgan_fast.adaptive_weight import LIMITS
from wgan_fast.training.choices import (
    LARGEST_SEED,
    PICTURED_IMAGES,
    Backend,
    Data,
    Loop,
    Normalisation,
    Pairs,
    Scores,
)
from wgan_fast.training.errors import ConfigError
from wgan_fast.training.lipschitz import Lipschitz, Objective, require_match

if TYPE_CHECKING:
    from wgan_fast.training.config import TrainConfig

REAL_NUMBERS = (
    "critic_learning_rate",
    "generator_learning_rate",
    "beta1",
    "beta2",
    "penalty_weight",
    "drift",
    "clip_value",
)


def real_number(name: str, value: object) -> float:
    """The value as a float: torch's optimisers, for one, refuse an int beside a float."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):  # type: ignore[arg-type]
        raise ConfigError(f"{name}: expected a finite number, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def require_choices(config: "TrainConfig") -> None:
    """Raises where a setting is none of its words."""
    words = {
        "data": Data,
        "backend": Backend,
        "loop": Loop,
        "critic_scores": Scores,
        "pairs": Pairs,
    }
    for name, literal in words.items():
        _require_choice(name, getattr(config, name), get_args(literal))
    for name in ("conditional", "inpaint"):
        _require_choice(name, getattr(config, name), (True, False))
    for name, literal in {"objective": Objective, "lipschitz": Lipschitz}.items():
        _require_choice(name, getattr(config, name), (*get_args(literal), None))
    _require_choice("image_size", config.image_size, (16, 28, 32, 64))
    _require_choice("dtype", config.dtype, ("float32", "float64"))
    _require_choice("normalisation", config.normalisation, (*get_args(Normalisation), None))


def _require_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        expected = ", ".join(str(choice) for choice in allowed if choice is not None)
        raise ConfigError(f"{name}: expected one of {expected}; got {value!r}")


def require_ranges(config: "TrainConfig") -> None:
    """Raises where a number is out of range."""
    at_least = dict.fromkeys(
        ("steps", "batch_size", "n_critic", "latent_dim", "channels", "hidden_dim", "pac"), 1
    )
    at_least |= {"threads": 1, "log_every": 1, "picture_every": 1, "penalty_every": 1, "seed": 0}
    for name, lowest in at_least.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ConfigError(f"{name}: expected an integer of at least {lowest}, got {value!r}")
    if config.seed > LARGEST_SEED:
        raise ConfigError(f"seed: expected at most {LARGEST_SEED}, got {config.seed}")
    for name in ("critic_learning_rate", "generator_learning_rate", "clip_value"):
        if not getattr(config, name) > 0:
            raise ConfigError(f"{name}: expected a number above 0, got {getattr(config, name)!r}")
    for name in ("penalty_weight", "drift"):
        if getattr(config, name) < 0:
            raise ConfigError(
                f"{name}: expected a number of at least 0, got {getattr(config, name)!r}"
            )
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{name}: expected a number in [0, 1), got {getattr(config, name)!r}")


def require_sense(config: "TrainConfig") -> None:
    """Raises where settings do not go with each other; the message names both."""
    require_match(config.objective, config.lipschitz)
    _require_shape(config)
    if config.penalty is not None and config.normalisation == "batch":
        raise ConfigError(
            f"normalisation: batch does not go with {config.objective} and a gradient penalty, "
            "which is on each sample's own gradient; expected none, layer or instance"
        )
    if config.lipschitz in ("sn", "groupsort") and config.normalisation != "none":
        raise ConfigError(
            f"normalisation: {config.normalisation} does not go with {config.lipschitz}, whose "
            "bound on the critic's slope it would undo; expected none"
        )
    width = "hidden_dim" if config.is_2d else "channels"
    if config.lipschitz == "groupsort" and getattr(config, width) % 2:
        raise ConfigError(
            f"{width}: groupsort sorts in pairs, expected an even number, "
            f"got {getattr(config, width)}"
        )
    if config.penalty is None and config.backend != "auto":
        raise ConfigError(
            f"backend: only a gradient penalty takes one, so {config.lipschitz} expects auto; "
            f"got {config.backend!r}"
        )
    if config.backend == "first_order" and config.loop in ("captured", "compiled"):
        raise ConfigError(
            f"backend: first_order goes with loop eager, and with auto; got loop {config.loop}"
        )
    if config.penalty is None and config.penalty_every != 1:
        raise ConfigError(
            f"penalty_every: only a gradient penalty takes one, so {config.lipschitz} expects 1; "
            f"got {config.penalty_every}"
        )
    least, largest = LIMITS
    if config.penalty == "adaptive" and not least <= config.penalty_weight <= largest:
        raise ConfigError(
            f"penalty_weight: adaptive keeps λ between {least:g} and {largest:g}, expected one to "
            f"begin with from there; got {config.penalty_weight!r}"
        )
    try:
        torch.device("cpu" if config.device == "auto" else config.device)
    except RuntimeError:
        raise ConfigError(
            f"device: expected auto, cpu, cuda or cuda:<index>; got {config.device!r}"
        ) from None


def _require_shape(config: "TrainConfig") -> None:
    """Whether there can be such a critic."""
    taken = [name for name in ("conditional", "inpaint") if getattr(config, name)]
    taken += ["pairs"] if config.pairs != "none" else []
    if taken and config.is_2d:
        what = "are images" if taken[0] == "inpaint" else "has labels"
        raise ConfigError(f"{taken[0]}: only data digits {what}; got data {config.data}")
    if len(taken) > 1:
        raise ConfigError(
            f"{taken[1]}: does not go with {taken[0]}, which says otherwise what generator and "
            "critic take; expected one of the two"
        )
    if config.pairs == "separate" and config.penalty is None:
        raise ConfigError(
            f"pairs: separate is of gradient penalties, which {config.lipschitz} is not; expected "
            "joint"
        )
    if config.pairs != "none" and config.lipschitz == "groupsort":
        raise ConfigError(
            f"pairs: {config.pairs} does not go with lipschitz groupsort, whose critic is "
            "1-Lipschitz in images alone; expected none"
        )
    if config.critic_scores != "one" and config.is_2d:
        raise ConfigError(
            f"critic_scores: {config.critic_scores} goes with images, data digits; got data "
            f"{config.data}"
        )
    if config.critic_scores != "one" and config.lipschitz == "groupsort":
        raise ConfigError(
            f"critic_scores: {config.critic_scores} does not go with lipschitz groupsort, whose "
            "critic is 1-Lipschitz in its one score; expected one"
        )
    if config.batch_size % config.pac:
        raise ConfigError(
            f"pac: expected a divisor of batch_size {config.batch_size}, got {config.pac}"
        )
    if config.pac > PICTURED_IMAGES:
        raise ConfigError(
            f"pac: expected at most {PICTURED_IMAGES}, the samples of a picture, got {config.pac}"
        )
