"""What :func:`wgan_fast.explain` tells of a critic, to read and to print."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RecordedOp:
    """One kind of op that a derivative passes.

    Attributes:
        op: PyTorch's name of it.
        rule: the rule that derives it; ``"local autograd"`` where it has none of its own.
        count: how often it ran.
        curved: whether it sends second derivatives back to what depends on the input.
        of_parameters: whether it runs on parameters alone, as a spectral norm's ops do.
    """

    op: str
    rule: str
    count: int
    curved: bool
    of_parameters: bool


@dataclass(frozen=True)
class Route:
    """How ``backend="auto"`` takes one call, its backward included.

    Attributes:
        backend: ``"explicit"`` or ``"autograd"``; None where the call raises.
        reason: why it is not ``"explicit"``, or raises; None if it is.
        cost: in units of F, one forward of the critic on one batch; None where the call raises.
        autograd_cost: what ``backend="autograd"`` costs; None where that raises.
        peak_bytes: the most bytes that the call and its backward allocate at one time.
        autograd_peak_bytes: the same of ``backend="autograd"``.
    """

    backend: str | None
    reason: str | None
    cost: int | None
    autograd_cost: int | None
    peak_bytes: int | None
    autograd_peak_bytes: int | None


@dataclass(frozen=True)
class Explanation:
    """How wgan_fast takes a critic; ``print`` shows it as a table.

    Attributes:
        critic: the critic's name.
        batch: the shape, the type and the device of the samples.
        ops: the recorded ops that a derivative passes, in the order of the first of each; empty if
            the critic cannot be recorded.
        gradient_penalty: the route of :func:`wgan_fast.gradient_penalty`.
        critic_loss: the route of :func:`wgan_fast.critic_loss`.
        r1: the route of ``critic_loss(at="real", target=0)``.
        r1_and_r2: the route of ``critic_loss(at="both", target=0)``.
        merged: whether ``critic_loss`` takes real, fake and interpolated samples as one batch.
        unmerged_reason: why it does not; None if it does.
        curved: whether second derivatives reach a parameter by way of an activation, which takes
            one more reverse pass; None if the critic cannot be recorded to the end.
        warnings: what is likely to be wrong with the critic, in sentences.
    """

    critic: str
    batch: str
    ops: tuple[RecordedOp, ...]
    gradient_penalty: Route
    critic_loss: Route
    r1: Route
    r1_and_r2: Route
    merged: bool
    unmerged_reason: str | None
    curved: bool | None
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.critic} on {self.batch}"
        yield ""
        if self.ops:
            ops = [
                (
                    op.op + " (of parameters)" * op.of_parameters,
                    op.rule,
                    str(op.count),
                    _yes(op.curved),
                )
                for op in self.ops
            ]
            yield from _table(("op", "rule", "times", "curved"), ops)
            yield ""
        routes = {
            "gradient_penalty": self.gradient_penalty,
            "critic_loss": self.critic_loss,
            '  at="real" (R1)': self.r1,
            '  at="both" (R1 + R2)': self.r1_and_r2,
        }
        rows = [
            (
                name,
                route.backend or "none",
                _cost(route.cost),
                _cost(route.autograd_cost),
                _bytes(route.peak_bytes),
                _bytes(route.autograd_peak_bytes),
            )
            for name, route in routes.items()
        ]
        head = ("call", 'backend="auto"', "cost", "by autograd", "peak memory", "by autograd")
        yield from _table(head, rows)
        yield ""
        explicit = self.critic_loss.backend == "explicit"
        apart = self.unmerged_reason if explicit else None
        for backend, reason in dict.fromkeys((r.backend, r.reason) for r in routes.values()):
            if reason is not None and reason != apart:
                yield f"{backend or 'none'}: {reason}"
        yield f"one batch: {_yes(self.merged)}" + (f", {apart}" if apart else "")
        yield f"curved, for one more reverse pass: {_yes(self.curved)}"
        for warning in self.warnings:
            yield f"warning: {warning}"


def _yes(answer: bool | None) -> str:
    return "unknown" if answer is None else "yes" if answer else "no"


def _cost(cost: int | None) -> str:
    return "-" if cost is None else f"{cost}F"


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they must be: two of words, the others of numbers, on the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, tuple("-" * width for width in widths), *rows):
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
