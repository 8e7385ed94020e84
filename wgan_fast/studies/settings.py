"""The settings that every study has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from wgan_fast.training.choices import LARGEST_SEED
from wgan_fast.training.errors import ConfigError

# The help text of such a setting names its default, so tyro need not say "default: None".
_ITS_OWN = tyro.conf.arg(help_behavior_hint="")


@dataclass(frozen=True)
class StudySettings:
    """How a study is run.

    Raises:
        ConfigError: a setting is out of range.
    """

    steps: Annotated[int | None, _ITS_OWN] = None
    """Training steps of each network that is compared. Default: the study's own number."""
    seed: int = 0
    """One seed, one result: the same machine, device and threads give the same numbers."""
    device: str = "auto"
    """auto (cuda where there is one, else cpu), cpu, cuda, cuda:1, ..."""
    threads: Annotated[int | None, _ITS_OWN] = None
    """CPU threads. Default: torch's choice."""
    folder: Annotated[Path | None, _ITS_OWN] = None
    """Where the results go, a new folder or an empty one. Default: runs/study-NAME, numbered if
    that is taken."""

    def __post_init__(self) -> None:
        for name in ("steps", "threads"):
            value = getattr(self, name)
            if value is not None and not (_is_integer(value) and value >= 1):
                raise ConfigError(f"{name}: expected an integer of at least 1, got {value!r}")
        try:
            torch.device("cpu" if self.device == "auto" else self.device)
        except RuntimeError:
            raise ConfigError(
                f"device: expected auto, cpu, cuda or cuda:<index>; got {self.device!r}"
            ) from None
        if not (_is_integer(self.seed) and 0 <= self.seed <= LARGEST_SEED):
            raise ConfigError(
                f"seed: expected a number from 0 to {LARGEST_SEED}, got {self.seed!r}"
            )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
