"""The folder that a study leaves behind: all of it, or nothing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wgan_fast.training.errors import RunFolderError
from wgan_fast.training.run_folder import new_folder


@contextmanager
def results_folder(folder: Path | None, name: str) -> Iterator[tuple[Path, Path]]:
    """Reserves the study's folder; gives it, and a hidden one beside it to write into.

    When the block is left in order, the hidden folder takes the place of the reserved one at once.
    However else it is left, both are gone (a reserved one that was there before stays, empty).

    Raises:
        RunFolderError: the folder holds something, then or at the end, or cannot be made.
    """
    was_there = folder is not None and folder.exists()
    place = new_folder("folder", folder, f"study-{name}")
    absolute = place.resolve()
    unfinished = Path(tempfile.mkdtemp(prefix=f".{absolute.name}-", dir=absolute.parent))
    try:
        yield place, unfinished
        # mkdtemp lets nobody else read, the reserved folder has what the user's umask gives.
        unfinished.chmod(absolute.stat().st_mode)
        try:
            os.replace(unfinished, absolute)
        except OSError as error:
            raise RunFolderError(f"folder: cannot fill {place}: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not was_there:
            with suppress(OSError):  # somebody else's files may be in it by now
                absolute.rmdir()
        raise
