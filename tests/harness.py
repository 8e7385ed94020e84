"""What the tests share: shapes, dtypes, layouts, tolerances, and the comparison with float64."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# (1, 1), odd rows, a batch of feature maps, rows longer than any block, samples without numbers.
SHAPES = ((1, 1), (3, 7), (64, 3, 31, 29), (5, 100_003), (4, 0), (2, 3, 4, 5, 6))

# Relative to the largest expected number: one rounding of the result, or of a sum in float32.
ROUNDING = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.bfloat16: 2**-7,
    torch.float16: 2**-10,
}


def accumulation(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def assert_matches(
    actual: Tensor,
    expected: Tensor,
    tolerance: float | None = None,
    terms: Tensor | None = None,
) -> None:
    """``actual`` equals the float64 ``expected`` to its own dtype's rounding, NaN nowhere.

    The error is relative to the largest expected number, or to the largest of ``terms`` where the
    result is a difference of these; numbers close to 0 are a fixed step from each other.
    """
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    assert expected.dtype == torch.float64, "the oracle must be float64"
    if actual.numel() == 0:
        return
    if tolerance is None:
        tolerance = ROUNDING[actual.dtype]
    scale = (expected if terms is None else terms).abs().max().item()
    error = (actual.double() - expected).abs().max().item()
    step = torch.finfo(actual.dtype).smallest_normal * torch.finfo(actual.dtype).eps
    allowed = tolerance * scale + step
    assert error <= allowed, f"off by {error / max(scale, 1e-300):.2e} relative"


def opcheck(operator, arguments, keywords=None) -> None:
    """``torch.library.opcheck``, which reads ``.grad`` of tensors that have none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        torch.library.opcheck(operator, arguments, keywords)


def layouts(tensor: Tensor) -> dict[str, Tensor]:
    """The same numbers in every memory layout that users bring."""
    found = {"contiguous": tensor.contiguous()}
    if tensor.dim() == 4:
        found["channels_last"] = tensor.contiguous(memory_format=torch.channels_last)
    found["transposed"] = tensor.transpose(0, -1).contiguous().transpose(0, -1)
    doubled = torch.stack([tensor, torch.full_like(tensor, float("nan"))], dim=-1)
    found["strided"] = doubled.flatten(-2)[..., ::2]
    for name, other in found.items():
        assert torch.equal(other, tensor), name
    return found


def run_python(code: str, *arguments: str, python: str | Path = sys.executable, **environment: str):
    """Run ``code`` in a new interpreter at the root; fails with its output if it does."""
    done = subprocess.run(
        [python, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
