"""A Markdown table for each claim, for people: one row for every side of every case."""

from itertools import groupby

from bench.harness.results import CaseResult, Results, SideResult

_FIRST = ("case", "side", "times as fast [q1, q3]", "ms")
_OPTIONAL = (
    "GB/s",
    "FLOPs/F",
    "of GEMM's peak",
    "operators",
    "first call, pays after",
    "peak memory",
    "of the baseline's (allocator's)",
)
_LAST = ("must", "")
_COLUMNS = (*_FIRST, *_OPTIONAL, *_LAST)
_NOTHING = "–"

_LEGEND = """\
The first side of each case is the baseline. Times as fast: its time over the side's within one \
round, median and quartiles over all rounds. GB/s: bytes that any implementation must move, over \
the median time; inputs that fit the cache come from there. FLOPs/F: floating point operations of \
matrix products and convolutions, in units of one forward pass over one batch. Of GEMM's peak: \
their number per second over that of a large float32 torch.mm, the fastest of some before and \
after the case; Winograd's convolutions count in full. Operators: dispatched per call, by a \
loop's later steps. First call, pays after: \
seconds until the first result where they are many, tracing and compilation included, and after \
how many calls they are made up for. Peak memory: the most that one call allocates at one time, \
counted between operators; the ratio in brackets is the allocator's, with what operators use \
inside themselves. Compiled sides dispatch few operators and have the allocator's count alone. \
Noisy: the quartiles lie further apart than a fifth of the \
median. Starved: other processes took the cores, and these times count scheduling; measure again \
on an idle machine."""


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"


def _or_nothing(number: float | None, spelled: str = "{:.2f}") -> str:
    return _NOTHING if number is None else spelled.format(number)


def _first_call(case: CaseResult, side: SideResult) -> str:
    # A call that is not much longer than the others says nothing worth a cell.
    if side.first_seconds is None or side.first_seconds < 0.5:
        return _NOTHING
    calls = case.pays_after(side)
    return f"{side.first_seconds:.1f} s, {'never' if calls is None else calls}"


def _row(case: CaseResult, side: SideResult) -> list[str]:
    speed = case.speed_up(side)
    figures = [figure for figure in case.figures if figure.side == side.name]
    first = side is case.sides[0]
    memory, allocator = case.memory_ratio(side), case.allocator_ratio(side)
    return [
        f"{case.name.partition('/')[2]}: {case.sizes}" if first else "",
        side.name,
        "1"
        if first
        else f"**{speed.median:.2f}** [{speed.q1:.2f}, {speed.q3:.2f}] {case.doubt(side)}".rstrip(),
        f"{side.median_seconds * 1e3:.3g}",
        _or_nothing(case.gigabytes_per_second(side), "{:.3g}"),
        _or_nothing(case.forwards(side)),
        _or_nothing(case.gemm_fraction(side)),
        _or_nothing(side.operators, "{}"),
        _first_call(case, side),
        _NOTHING if side.peak_bytes is None else _bytes(side.peak_bytes),
        f"{_or_nothing(memory)} ({_or_nothing(allocator)})",
        "; ".join(map(str, figures)) or _NOTHING,
        "; ".join(case.verdict(figure) for figure in figures),
    ]


def _refusal(case: str, side: str, reason: str, must: str = _NOTHING) -> list[str]:
    blank = [""] * (len(_COLUMNS) - 5)
    return [case, side, f"not measured: {reason}", *blank, must, ""]


def _rows(case: CaseResult) -> list[list[str]]:
    if case.refused:
        figures = "; ".join(f"{figure.side} {figure}" for figure in case.figures)
        subject = case.name.partition("/")[2]
        return [_refusal(f"{subject}: {case.sizes}", "", case.refused, figures or _NOTHING)]
    return [
        *(_row(case, side) for side in case.sides),
        *(_refusal("", peer, reason) for peer, reason in case.refused_peers.items()),
    ]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _table(cases: list[CaseResult]) -> list[str]:
    """Without the columns that would be empty."""
    rows = [row for case in cases for row in _rows(case)]
    kept = [
        index
        for index, column in enumerate(_COLUMNS)
        if column not in _OPTIONAL or any(row[index] not in ("", _NOTHING) for row in rows)
    ]
    lines = [list(_COLUMNS), ["---"] * len(_COLUMNS), *rows]
    return [_line([line[index] for index in kept]) for line in lines]


def table(results: Results) -> str:
    """The tables, how to read them and what they were measured on, in Markdown."""
    lines = []
    for claim, cases in groupby(results.cases, key=lambda case: case.name.partition("/")[0]):
        lines += [f"### {claim}", "", *_table(list(cases)), ""]
    stamp = "; ".join(f"{key} {value}" for key, value in results.stamp.items())
    return "\n".join([*lines, _LEGEND, "", stamp])
