"""Finds the case files: every module of :mod:`bench` that has ``CASES``."""

import importlib
import pkgutil
from collections import Counter

import bench
from bench.harness.case import Case


def all_cases() -> list[Case]:
    """The cases of all case files, by file name, in each file's order."""
    found: list[Case] = []
    for module in sorted(pkgutil.iter_modules(bench.__path__), key=lambda module: module.name):
        if module.ispkg or module.name in ("__main__", "conftest") or module.name[:5] == "test_":
            continue
        found += getattr(importlib.import_module(f"bench.{module.name}"), "CASES", ())
    twice = [name for name, times in Counter(case.name for case in found).items() if times > 1]
    if twice:
        raise ValueError(f"two cases have one name: {', '.join(twice)}")
    return found


def cases_for(device: str, only: str = "") -> list[Case]:
    """The cases that make sense on ``device`` and have ``only`` in their name."""
    return [case for case in all_cases() if device in case.devices and only in case.name]
