"""The one live line of a training run; plain lines, few of them, where nobody watches."""

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SHORT_NAMES = {
    "critic_loss": "critic",
    "generator_loss": "generator",
    "wasserstein": "W",
    "gradient_norm": "‖∇f‖",
    "weight": "λ",
}
_PLAIN_LINES = 10


class ProgressLine:
    """Shows the step, the losses, the Wasserstein estimate, the mean gradient norm and it/s."""

    def __init__(self, steps: int, console: Console) -> None:
        self._console = console
        self._steps = steps
        self._next_line = 1
        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[metrics]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=steps, metrics="")

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the newest metrics."""
        parts = [
            f"{short} {metrics[name]:.3g}"
            for name, short in _SHORT_NAMES.items()
            if name in metrics
        ]
        line = "  ".join([*parts, f"{metrics['steps_per_second']:.1f} it/s"])
        self._progress.update(self._task, completed=step, metrics=line)
        if not self._console.is_terminal and step * _PLAIN_LINES >= self._steps * self._next_line:
            self._next_line = step * _PLAIN_LINES // self._steps + 1
            self._console.print(f"{step}/{self._steps}  {line}", highlight=False)

    def __enter__(self) -> "ProgressLine":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
