"""``python -m bench``: measure every case, print the tables, write every sample as JSON."""

import argparse
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from bench.harness.discover import cases_for
from bench.harness.interleave import Plan
from bench.harness.measure import measure_or_refuse
from bench.harness.results import Results
from bench.harness.stamp import load, stamp
from bench.harness.table import table

_RESULTS = Path(__file__).resolve().parent / "results"


def _arguments(given: list[str] | None) -> argparse.Namespace:
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", metavar="PATTERN", help="cases with this in the name")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's threads (%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=plan.rounds, help="at least so many (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=plan.seconds, help="rounds go on for this (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="where to (bench/results/<date>.json)")
    parser.add_argument(
        "--strict", action="store_true", help="a figure that is not met is an error"
    )
    parser.add_argument("--list", action="store_true", help="name the cases, measure none")
    arguments = parser.parse_args(given)
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads take a positive number")
    return arguments


def main(given: list[str] | None = None) -> int:
    """Returns the exit status: 1 if a case was refused or, where strict, a figure not met."""
    arguments = _arguments(given)
    cases = cases_for(arguments.device, arguments.only)
    if not cases:
        print(f"no case has {arguments.only!r} in its name", file=sys.stderr)
        return 2
    if arguments.list:
        print("\n".join(case.name for case in cases))
        return 0
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: PyTorch finds no CUDA device here", file=sys.stderr)
        return 2

    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    plan = replace(Plan(), rounds=arguments.rounds, seconds=arguments.seconds)
    where = stamp(device)
    measured = []
    for index, case in enumerate(cases, 1):
        print(f"[{index}/{len(cases)}] {case.name}", file=sys.stderr, flush=True)
        measured.append(measure_or_refuse(case, device, plan))
    results = Results(where | {"load at the end": load()}, measured)

    print(table(results))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%SZ")
    results.write(arguments.json or _RESULTS / f"{now}-{device.type}.json")
    for line in (*results.peers_not_measured, *results.not_met):
        print(line, file=sys.stderr)
    refused = any(case.refused for case in measured)
    return int(refused or (arguments.strict and bool(results.not_met)))


if __name__ == "__main__":
    sys.exit(main())
