"""``wgan-fast train``, ``resume``, ``sample``, ``study`` and ``doctor``.

Exit status: 0 when done, 1 when the work failed, 2 when the command line cannot be, 130 when the
user stopped it. What the user can mend is said in a line, without a traceback.
"""

import importlib.util
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch

import wgan_fast
from wgan_fast import ops

# Import names of the packages in the extra "train".
_EXTRA = ("matplotlib", "rich", "scipy", "sklearn", "tensorboard", "torchvision", "tyro")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, ``sys.argv`` if left out, and returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if missing := _missing_extra():
        # The doctor must answer where something is missing: that is what it is for.
        if arguments == ["doctor"]:
            doctor()
            return 0
        _say(f'{", ".join(missing)} not installed; run: pip install "wgan-fast[train]"')
        return 1
    return _run(arguments)


def _run(arguments: list[str]) -> int:
    import tyro

    from wgan_fast import studies, training

    def train(config: Annotated[training.TrainConfig, tyro.conf.arg(name="")]) -> None:
        """Train a generator against a critic and leave a run folder, whose path is printed."""
        print(training.train(config))

    def resume(
        run: tyro.conf.Positional[Path],
        steps: Annotated[int | None, tyro.conf.arg(help_behavior_hint="")] = None,
        run_folder: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="")] = None,
    ) -> None:
        """Go on with a run from its checkpoint in a new run folder, whose path is printed.

        Args:
            run: a run folder, or the checkpoint file in one.
            steps: generator steps in all. Default: the run's own.
            run_folder: where everything is written. Default: as for train.
        """
        print(training.resume(run, steps, run_folder))

    def sample(
        run: tyro.conf.Positional[Path],
        count: int = 100,
        seed: int = 0,
        output: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="")] = None,
        label: Annotated[int | None, tyro.conf.arg(help_behavior_hint="")] = None,
    ) -> None:
        """Draw from a trained generator into a picture, whose path is printed.

        Args:
            run: a run folder, or the checkpoint file in one.
            count: how many samples.
            seed: one seed, one picture.
            output: the PNG to write. Default: sample-seed-SEED.png beside the checkpoint.
            label: of a conditional run, the digit to draw. Default: all of them, sorted.
        """
        print(training.sample(run, count, seed, output, label))

    def study(
        name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help_behavior_hint="")] = "",
        *,
        settings: Annotated[studies.StudySettings, tyro.conf.arg(name="")],
        list: tyro.conf.FlagCreatePairsOff[bool] = False,
    ) -> None:
        """Repeat a classic exercise: a picture, its numbers and what they say of the claim.

        Args:
            name: which one; without it, they are listed.
            settings: of the run.
            list: list the studies and their claims.
        """
        if list or not name:
            print(studies.listing())
            return
        outcome = studies.run(studies.find(name), settings)
        print(f"{outcome.verdict}\n{outcome.folder}")

    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "train": train,
                "resume": resume,
                "sample": sample,
                "study": study,
                "doctor": doctor,
            },
            prog="wgan-fast",
            description=wgan_fast.__doc__,
            args=arguments,
            config=(tyro.conf.DisallowNone,),
        )
    except training.TrainingError as error:
        _say(str(error))
        return 2 if isinstance(error, training.ConfigError) else 1
    except KeyboardInterrupt:
        _say("stopped; what was written so far is kept")
        return 130
    return 0


def doctor() -> None:
    """Say which parts are here, what runs on them, and what a missing one costs."""
    table = ops.status()
    pieces = {name: table.pop(name) for name in ("extension", "triton")}
    width = max(map(len, ("operator", *table))) + 2
    lines = [
        f"wgan_fast {wgan_fast.__version__}",
        f"Python {platform.python_version()}, torch {torch.__version__}, {_accelerator()}",
        "",
        f"{'operator':{width}}{'on CPU':16}on GPU",
    ]
    lines += [f"{name:{width}}{on['cpu']:16}{on['cuda']}" for name, on in table.items()]
    lines.append("")
    costs = {
        "extension": "plain PyTorch stands in on CPUs: the same numbers, more passes over memory",
        "triton": "plain PyTorch stands in on GPUs: the same numbers, more kernels and memory",
    }
    for name, piece in pieces.items():
        if name == "extension" and piece["usable"] == "yes" and not _has_cuda(table):
            lines.append("extension: usable, built without CUDA (FORCE_CUDA=1 builds it with)")
        elif piece["usable"] == "yes":
            lines.append(f"{name}: usable")
        else:
            lines.append(f"{name}: not usable, {piece['why']}; {costs[name]}")
    if missing := _missing_extra():
        lines.append(
            f"trainer: not usable, {', '.join(missing)} not installed; everything but `train`, "
            '`resume`, `sample` and `study` works. To have them: pip install "wgan-fast[train]"'
        )
    else:
        lines.append("trainer: usable")
    print("\n".join(lines))


def _has_cuda(table: dict[str, dict[str, str]]) -> bool:
    return any(on["cuda"] == "CUDA C++" for on in table.values())


def _accelerator() -> str:
    if torch.cuda.is_available():
        return f"GPU {torch.cuda.get_device_name()}"
    return "no GPU"


def _missing_extra() -> list[str]:
    return [name for name in _EXTRA if importlib.util.find_spec(name) is None]


def _say(message: str) -> None:
    print(f"wgan-fast: {message}", file=sys.stderr)
