"""No side is fast by being wrong: results are compared before anything is timed.

For each tensor b of the baseline's result and a of the side's, ‖a − b‖ ≤ tolerance · ‖b‖. The
norm and not the largest element decides: where rounding moves one activation across a kink, one
element of a gradient may jump, honestly. A tensor much smaller than its siblings, such as the
gradient of a bias that cancels, is measured against a thousandth of the largest of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bench.harness.case import DisagreementError, Run

_SMALLEST_SCALE = 1e-3


@contextmanager
def _full_float32(device: torch.device) -> Iterator[None]:
    # By default a GPU's convolutions round their inputs to TF32: to be timed, not to be compared.
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def _snapshot(result: Any) -> list[Tensor | None]:
    """The result's tensors as they are now, in float64; None stands for a gradient of zero."""
    leaves = tree_leaves(result)
    return [
        None if leaf is None else torch.as_tensor(leaf).detach().to("cpu", torch.float64, copy=True)
        for leaf in leaves
    ]


def _norm(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None else tensor.norm().item()


def compare(expected: Any, actual: Any, tolerance: float, name: str = "the side") -> None:
    """Raises :class:`DisagreementError` unless ``actual`` has the tensors of ``expected``."""
    expected, actual = _snapshot(expected), _snapshot(actual)
    if len(expected) != len(actual):
        raise DisagreementError(
            f"{name} returns {len(actual)} tensors where the baseline returns {len(expected)}"
        )
    floor = _SMALLEST_SCALE * max(map(_norm, expected), default=0.0)
    for index, (a, b) in enumerate(zip(actual, expected, strict=True)):
        if a is not None and b is not None and a.shape != b.shape:
            raise DisagreementError(
                f"{name}: result {index} has shape {tuple(a.shape)}, the baseline's "
                f"{tuple(b.shape)}"
            )
        difference = a if b is None else b if a is None else a - b
        error, scale = _norm(difference), max(_norm(b), floor)
        if not error <= tolerance * scale:  # a NaN must not pass
            raise DisagreementError(
                f"{name}: result {index} is off by {error / max(scale, 1e-300):.1e} relative to "
                f"the baseline's; at most {tolerance:.1e} is allowed"
            )


def check_agreement(sides: Mapping[str, Run], tolerance: float, device: torch.device) -> None:
    """Runs each side once; raises :class:`DisagreementError` if one differs from the first."""
    with _full_float32(device):
        # Copied at once: a later side may write where an earlier one's result lives.
        results = {name: _snapshot(run()) for name, run in sides.items()}
    (_, expected), *others = results.items()
    if not any(tensor is not None for tensor in expected):
        raise DisagreementError("the baseline returns nothing that could be compared")
    for name, actual in others:
        compare(expected, actual, tolerance, name)
