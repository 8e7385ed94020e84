"""Where and when a result was measured, and by what: a number without this means nothing."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from wgan_fast import ops

_ROOT = Path(__file__).resolve().parents[2]


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def load() -> float | None:
    """How many processes wanted a core in the last minute; other people's work shows here."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def stamp(device: torch.device) -> dict[str, Any]:
    """Date, hardware, threads, versions, and which implementation of each operator runs."""
    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device.type,
        "CPU": f"{_cpu_name()}, {os.cpu_count()} cores",
    }
    if device.type == "cuda":
        found["GPU"] = torch.cuda.get_device_name(device)
        found["CUDA"] = torch.version.cuda or torch.version.hip
        found["cuDNN"] = torch.backends.cudnn.version()
    table = ops.status()
    return found | {
        "threads": torch.get_num_threads(),
        "load": load(),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "wgan_fast": _version("wgan-fast"),
        "commit": _commit(),
        "operators": {name: by[device.type] for name, by in table.items() if device.type in by},
    }
