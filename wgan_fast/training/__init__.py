"""The trainer behind ``wgan-fast train``; needs the extra ``train``."""

try:
    from wgan_fast.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from wgan_fast.training.config import TrainConfig
    from wgan_fast.training.errors import (
        CheckpointError,
        ConfigError,
        NonFiniteLossError,
        RunFolderError,
        TrainingError,
    )
    from wgan_fast.training.loop import resume, train
    from wgan_fast.training.sampling import sample
except ModuleNotFoundError as error:
    if error.name is not None and error.name.split(".")[0] == "wgan_fast":
        raise
    raise ModuleNotFoundError(
        f'the trainer needs {error.name}: pip install "wgan-fast[train]"', name=error.name
    ) from error

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "NonFiniteLossError",
    "RunFolderError",
    "TrainConfig",
    "TrainingError",
    "load_checkpoint",
    "resume",
    "sample",
    "save_checkpoint",
    "train",
]
