"""The studies by name."""

from typing import Any

from wgan_fast.studies import (
    clip_value,
    estimate,
    gradient_norms,
    memory,
    normalisation,
    penalty_weight,
    point_masses,
    weights,
)
from wgan_fast.studies.study import Study
from wgan_fast.training.errors import ConfigError

STUDIES: dict[str, Study[Any]] = {
    module.STUDY.name: module.STUDY
    for module in (
        gradient_norms,
        weights,
        penalty_weight,
        clip_value,
        normalisation,
        memory,
        point_masses,
        estimate,
    )
}


def find(name: str) -> Study[Any]:
    """The study of that name.

    Raises:
        ConfigError: there is none; names those that there are.
    """
    if name not in STUDIES:
        raise ConfigError(f"name: expected one of {', '.join(STUDIES)}; got {name!r}")
    return STUDIES[name]


def listing() -> str:
    """A line for each study: its name and its claim."""
    width = max(map(len, STUDIES))
    return "\n".join(f"{study.name:{width}}  {study.claim}" for study in STUDIES.values())
