"""The folder that a training run leaves behind.

config.json          every setting, with the paper's values filled in
metrics.jsonl        one JSON object per logging interval
curves.png           the same as curves
samples/*.png        pictures from a fixed z, named by step
checkpoint.pt        generator, critic and settings; see checkpoint.py
events.out.tfevents* metrics and pictures for TensorBoard
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from wgan_fast.training.config import TrainConfig
from wgan_fast.training.errors import RunFolderError
from wgan_fast.training.lipschitz import method_of
from wgan_fast.training.pictures import save_curves


class RunFolder:
    """Creates the folder, then writes what the trainer hands over; a context manager.

    Everything is on disk when the ``with`` block is left, however it is left.

    Raises:
        RunFolderError: the config names a folder that already holds something, or one that cannot
            be made.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.path = new_folder("run_folder", config.run_folder, _name(config))
        self.rows: list[dict[str, float]] = []
        settings = json.dumps(config.to_json(), indent=2)
        (self.path / "config.json").write_text(settings + "\n", encoding="utf-8")
        (self.path / "samples").mkdir()
        self._metrics = (self.path / "metrics.jsonl").open("w", encoding="utf-8")
        self._events = SummaryWriter(str(self.path))  # type: ignore[no-untyped-call]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one line of metrics: those that the objective has."""
        row = {"step": step, **metrics}
        self.rows.append(row)
        print(json.dumps(row, allow_nan=False), file=self._metrics, flush=True)
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)  # type: ignore[no-untyped-call]

    def picture_path(self, step: int) -> Path:
        """Where the picture of a step belongs."""
        return self.path / "samples" / f"step-{step:07d}.png"

    def show_picture(self, step: int) -> None:
        """Hands the picture of a step to TensorBoard as well."""
        with Image.open(self.picture_path(step)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._events.add_image(  # type: ignore[no-untyped-call]
            "samples", pixels, step, dataformats="HWC"
        )

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint belongs."""
        return self.path / "checkpoint.pt"

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._metrics.close()
        self._events.close()  # type: ignore[no-untyped-call]
        if self.rows:
            save_curves(self.rows, self.path / "curves.png")


def _name(config: TrainConfig) -> str:
    own = config.lipschitz == method_of(config.objective)
    method = [] if own else [config.lipschitz.replace("+", "-")]
    return "-".join([config.objective, *method, config.data])


def new_folder(argument: str, folder: Path | None, name: str) -> Path:
    """Makes ``folder``, or the first free one of runs/NAME, runs/NAME-2, runs/NAME-3, ...

    Raises:
        RunFolderError: the folder holds something or cannot be made; names the ``argument``.
    """
    if folder is None:
        return _create_numbered(argument, Path("runs"), name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise RunFolderError(f"{argument}: cannot make {folder}: {error.strerror}") from error
    if taken:
        raise RunFolderError(
            f"{argument}: expected a folder that is new or empty, but {folder} holds something; "
            "name another one, or leave it out and a numbered one is made"
        )
    return folder


def _create_numbered(argument: str, parent: Path, name: str) -> Path:
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise RunFolderError(f"{argument}: cannot make {folder}: {error.strerror}") from error
        else:
            return folder
