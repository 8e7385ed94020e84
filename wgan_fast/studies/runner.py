"""Runs a study from its settings to its folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from wgan_fast.studies.results_folder import results_folder
from wgan_fast.studies.settings import StudySettings
from wgan_fast.studies.study import Conditions, Study, verdict
from wgan_fast.training.loop import choose_device, cpu_threads


class Outcome(NamedTuple):
    """What :func:`run` gives."""

    folder: Path
    """Holds NAME.png, and NAME.json with settings, numbers and findings."""
    verdict: str
    """The findings as text."""


def run(study: Study[Any], settings: StudySettings, console: Console | None = None) -> Outcome:
    """Measures, judges and draws; the folder is there with everything in it, or not at all.

    Args:
        study: one of :data:`wgan_fast.studies.STUDIES`.
        settings: steps, seed, device, threads and folder.
        console: where the progress goes; standard error if left out.

    Raises:
        ConfigError: the device is not there.
        RunFolderError: the folder is taken or cannot be made.
        NonFiniteLossError: a training broke down.
    """
    console = console or Console(stderr=True)
    device = choose_device(settings.device)
    steps = study.steps if settings.steps is None else settings.steps
    with results_folder(settings.folder, study.name) as (folder, unfinished):
        conditions = Conditions(steps, settings.seed, device, console)
        if settings.threads is None:
            measured = study.measure(conditions)
        else:
            with cpu_threads(settings.threads):
                measured = study.measure(conditions)
        findings = study.findings(measured)
        contents = {
            "study": study.name,
            "claim": study.claim,
            "source": study.source,
            "settings": {"steps": steps, "seed": settings.seed, "device": str(device)},
            "findings": [dataclasses.asdict(finding) for finding in findings],
            "measured": dataclasses.asdict(measured),
        }
        text = json.dumps(contents, indent=1, allow_nan=False, ensure_ascii=False)
        (unfinished / f"{study.name}.json").write_text(text + "\n", encoding="utf-8")
        figure = study.draw(measured)
        # A canvas of its own keeps pyplot's global state, and any display, out of it.
        FigureCanvasAgg(figure)
        figure.savefig(unfinished / f"{study.name}.png", dpi=100)
    return Outcome(folder, verdict(study, findings))
