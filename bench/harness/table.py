"""One Markdown table of all cases, for people."""

from bench.harness.results import CaseResult, Results, SideResult

_COLUMNS = (
    "case",
    "sizes",
    "side (against)",
    "times as fast [q1, q3]",
    "ms (against)",
    "GB/s (against)",
    "peak memory (against)",
    "memory ratio (allocator's)",
    "operators (against)",
    "must",
    "",
)

_LEGEND = """\
Times as fast: baseline's time over the side's within one round, median and quartiles over all \
rounds. GB/s: bytes that any implementation must move, over the median time; inputs that fit the \
cache come from there. Peak memory: the most that one call allocates at one time, counted between \
operators; the ratio in brackets is the allocator's, with what operators use inside themselves. \
Operators: dispatched per call. Noisy: the quartiles lie further apart than a fifth of the median. \
Starved: other processes took the cores, and these times count scheduling; measure again on an \
idle machine."""


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"


def _ratio(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f}"


def _row(case: CaseResult, side: SideResult) -> list[str]:
    baseline = case.sides[0]
    speed = case.speed_up(side)
    rate, baseline_rate = case.gigabytes_per_second(side), case.gigabytes_per_second(baseline)
    figures = [figure for figure in case.figures if figure.side == side.name]
    return [
        case.name,
        case.sizes,
        f"{side.name} ({baseline.name})",
        f"**{speed.median:.2f}** [{speed.q1:.2f}, {speed.q3:.2f}] {case.doubt(side)}".rstrip(),
        f"{side.median_seconds * 1e3:.3g} ({baseline.median_seconds * 1e3:.3g})",
        "–" if rate is None else f"{rate:.3g} ({baseline_rate:.3g})",
        f"{_bytes(side.peak_bytes)} ({_bytes(baseline.peak_bytes)})",
        f"{_ratio(case.memory_ratio(side))} ({_ratio(case.allocator_ratio(side))})",
        f"{side.operators} ({baseline.operators})",
        "; ".join(map(str, figures)) or "–",
        "; ".join(case.verdict(figure) for figure in figures),
    ]


def _rows(case: CaseResult) -> list[list[str]]:
    if case.refused:
        blank = [""] * (len(_COLUMNS) - 4)
        figures = "; ".join(map(str, case.figures))
        return [[case.name, case.sizes, f"not measured: {case.refused}", *blank, figures or "–"]]
    return [_row(case, side) for side in case.sides[1:]]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(results: Results) -> str:
    """The table, what it was measured on and how to read it, in Markdown."""
    rows = [row for case in results.cases for row in _rows(case)]
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *map(_line, rows)]
    stamp = "; ".join(f"{key} {value}" for key, value in results.stamp.items())
    return "\n".join([*lines, "", _LEGEND, "", stamp])
