"""One file that holds a trained generator and critic with their settings, whole or not at all.

With the state of their training, if it is given, the training can go on.
"""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wgan_fast.training.config import TrainConfig
from wgan_fast.training.errors import CheckpointError
from wgan_fast.training.networks import build_networks

_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back: both networks are on the CPU and in eval mode."""

    config: TrainConfig
    step: int
    generator: nn.Module
    critic: nn.Module
    training: Mapping[str, Any]
    """What :mod:`wgan_fast.training.resuming` needs; empty if it was not saved."""


def save_checkpoint(
    path: Path,
    config: TrainConfig,
    step: int,
    generator: nn.Module,
    critic: nn.Module,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Writes the checkpoint beside ``path`` and moves it there.

    Whoever looks at ``path``, at any time and after any crash, sees the former checkpoint or this
    one, never half of one.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    contents = {
        "version": _VERSION,
        "config": config.to_json(),
        "step": step,
        "generator": generator.state_dict(),
        "critic": critic.state_dict(),
        "training": dict(training or {}),
    }
    with unfinished.open("wb") as file:
        torch.save(contents, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint file, or the one in a run folder. Runs no code from the file.

    Raises:
        CheckpointError: there is none, or it is not a whole checkpoint of this version.
    """
    if path.is_dir():
        path = path / "checkpoint.pt"
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(
            f"run: expected a run folder with a checkpoint.pt, or such a file; found no {path}"
        ) from None
    # torch.load says "this is not such a file" in many ways.
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"run: {path} is damaged or not a checkpoint ({type(error).__name__})"
        ) from error
    if not isinstance(contents, Mapping) or contents.get("version") != _VERSION:
        raise CheckpointError(f"run: {path} is not a checkpoint of version {_VERSION}")
    return _rebuild(path, contents)


def _rebuild(path: Path, contents: Mapping[str, Any]) -> Checkpoint:
    try:
        config = TrainConfig(**contents["config"])
        generator, critic = build_networks(
            config, torch.device("cpu"), getattr(torch, config.dtype)
        )
        generator.load_state_dict(contents["generator"])
        critic.load_state_dict(contents["critic"])
        step = int(contents["step"])
        training = contents.get("training", {})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"run: {path} does not fit together: {error}") from error
    return Checkpoint(config, step, generator.eval(), critic.eval(), training)
