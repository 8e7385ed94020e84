"""Where the operators' implementations come from, and which of them are here.

The compiled extension registers its implementations when it is imported, which must happen before
the first operator is called; Triton's are registered where Triton can be imported. Neither is
needed: every operator has a plain PyTorch implementation under the dispatcher's
``CompositeExplicitAutograd`` key, which serves every device that nothing better is registered for.
"""

import functools
import importlib
import importlib.util
import platform
import warnings
from collections.abc import Callable
from typing import Any

import torch

_OPERATORS = (
    "interpolate",
    "merged_batch",
    "gradient_norm_penalty",
    "clip_weights_",
    "rmsprop_",
    "normalisation_vjp",
    "normalisation_jvp",
    "normalisation_second",
    "normalisation_parameters",
    "product",
    "winograd_gather",
    "winograd_spread",
    "winograd_weight",
)
LIBRARY = torch.library.Library("wgan_fast", "DEF")


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums and products are taken: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _load_extension() -> str | None:
    """Import the compiled extension; the reason why not, or None where it is loaded."""
    if importlib.util.find_spec("wgan_fast._C") is None:
        return "it was not built: no C++ compiler at install time, or the build failed"
    if platform.machine().lower() in ("x86_64", "amd64"):
        capability = torch.backends.cpu.get_cpu_capability()
        if capability == "DEFAULT":
            return "it is compiled for AVX2, which this CPU lacks or ATEN_CPU_CAPABILITY turns off"
    try:
        importlib.import_module("wgan_fast._C")
    except ImportError as error:
        warnings.warn(
            f"wgan_fast: the compiled extension cannot be loaded ({error}); plain PyTorch stands "
            "in. Reinstall wgan_fast against this PyTorch to have it back.",
            RuntimeWarning,
            stacklevel=2,
        )
        return str(error)
    return None


EXTENSION_MISSING = _load_extension()
TRITON_MISSING = None if importlib.util.find_spec("triton") else "triton is not installed"

_PLAIN, _CPP, _CUDA, _TRITON = "plain PyTorch", "C++", "CUDA C++", "Triton"


def define(name: str, arguments_and_result: str, plain: Callable[..., Any]) -> None:
    """Define operator ``name`` with its plain PyTorch implementation, for any device."""
    LIBRARY.define(name + arguments_and_result, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, plain, "CompositeExplicitAutograd")


def register_triton(name: str, launch: Callable[..., Any]) -> None:
    """Register ``launch`` as operator ``name`` on GPUs, where Triton can be imported."""
    if TRITON_MISSING is None:
        LIBRARY.impl(name, on_its_device(launch), "CUDA")
        _with_triton.add(name)


def on_its_device(launch: Callable[..., Any]) -> Callable[..., Any]:
    """``launch`` with its tensors' GPU as the current one, which is where Triton launches."""

    @functools.wraps(launch)
    def on_device(*arguments: Any) -> Any:
        device = next(a.device for a in arguments if isinstance(a, torch.Tensor))
        with torch.cuda.device(device):
            return launch(*arguments)

    return on_device


_with_triton: set[str] = set()


def status() -> dict[str, dict[str, str]]:
    """Which implementation each operator runs, by device; and why a faster one is missing.

    Returns:
        ``{operator: {"cpu": ..., "cuda": ...}}`` and, under ``"extension"`` and ``"triton"``,
        ``{"usable": "yes" or "no", "why": ...}``.
    """
    table: dict[str, dict[str, str]] = {}
    for name in _OPERATORS:
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        on_cuda = has(f"wgan_fast::{name}", "CUDA")
        compiled = _TRITON if name in _with_triton else _CUDA
        table[name] = {
            "cpu": _CPP if has(f"wgan_fast::{name}", "CPU") else _PLAIN,
            "cuda": compiled if on_cuda else _PLAIN,
        }
    for piece, why in (("extension", EXTENSION_MISSING), ("triton", TRITON_MISSING)):
        table[piece] = {"usable": "no" if why else "yes", "why": why or ""}
    return table
