"""The Triton kernels as their launchers call them: the one list for the ledger and the tests.

Sizes are aligned, as those of feature maps are; ``aligned=False`` compiles for odd ones.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from wgan_fast.kernels import (
    gradient_norm_penalty,
    gradient_norm_penalty_backward,
    interpolate,
    merged_batch,
    normalisation,
    normalisation_parameters,
    normalisation_second,
)
from wgan_fast.kernels.normalisation_tiles import Tiles
from wgan_fast.kernels.penalty_family import phi_options

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
ACCUMULATION = {"fp64": "fp64", "fp32": "fp32", "fp16": "fp32", "bf16": "fp32"}
_PER_SAMPLE = (
    "alpha", "norm", "penalty", "grad_norm", "grad_penalty", "weight", "scale", "along", "across",
    "total", "count", "inner",
)  # fmt: skip
_ALIGNED = ("length", "part", "repeat", "runs")


class KernelCase(NamedTuple):
    """One kernel in one of the forms in which it is launched.

    Attributes:
        name: the row's name in the ledger.
        kernel: the ``@triton.jit`` function.
        constants: what the launcher passes as constants.
        reads: the arguments, without ``_pointer``, that hold rows to be read: each once.
        writes: those to be written: each once.
        block: numbers of each that a program works on at a time.
        cached: those that are read once more, from the cache.
        warps: per program.
        ones: integers that are 1 in this form; Triton makes constants of them.
        elements: the types of numbers.
    """

    name: str
    kernel: Any
    constants: dict[str, Any]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    block: int
    cached: tuple[str, ...] = ()
    warps: int = 4
    ones: tuple[str, ...] = ()
    elements: tuple[str, ...] = tuple(ACCUMULATION)

    def __hash__(self) -> int:
        return hash(self.name)


def _normalisation(
    name: str, kernel: Any, shape: tuple[int, int], reads: str, writes: str, **constants: Any
) -> KernelCase:
    """A kernel on 64 rows of ``shape``: their length, and how many of it share an element of γ."""
    tiles = Tiles.cut(*shape, itemsize=4)
    given = {
        "CENTRED": True,
        "HAS_GAMMA": True,
        "SPLITS": tiles.splits(64),
        "RUNS": tiles.RUNS,
        "SPAN": tiles.SPAN,
        **constants,
    }
    integers = {
        "runs": tiles.runs, "repeat": tiles.repeat, "pieces": tiles.pieces, "tiles": tiles.count,
    }  # fmt: skip
    return KernelCase(
        name,
        kernel,
        {key: value for key, value in given.items() if key in kernel.arg_names},
        tuple(reads.split()),
        tuple(writes.split()),
        tiles.RUNS * tiles.SPAN,
        warps=tiles.warps,
        ones=tuple(key for key, value in integers.items() if value == 1),
        elements=("fp64", "fp32"),
    )


def _penalty(
    name: str, kernel: Any, block: int, reads: str, writes: str, cached: str = "", **constants: Any
) -> tuple[KernelCase, KernelCase]:
    """A kernel of the penalty family, for float64, whose blocks are half as large, and the rest."""

    def of(label: str, block: int, itemsize: int, *elements: str) -> KernelCase:
        return KernelCase(
            label,
            kernel,
            {**constants, "BLOCK": block},
            tuple(reads.split()),
            tuple(writes.split()),
            block,
            tuple(cached.split()),
            gradient_norm_penalty.warps_for(block, itemsize),
            elements=elements,
        )

    return (
        of(f"{name}, float64", block // 2, 8, "fp64"),
        of(name, block, 4, "fp32", "fp16", "bf16"),
    )


_PLAIN = {"HAS_WEIGHTS": False, "HAS_MASK": False}
_TWO_SIDED = phi_options((1.0, False, 2.0, 2.0)) | _PLAIN
# The member that takes the most registers.
_MOST = phi_options((0.5, True, 3.0, math.inf)) | {"HAS_WEIGHTS": True, "HAS_MASK": True}
_OF_NUMBERS = {"P": 2, "HAS_MASK": False}
_FORWARD, _BACKWARD = gradient_norm_penalty, gradient_norm_penalty_backward
_WHOLE, _LONG = (4096, 1), (131_072, 1)  # layer norm: a row in one tile, and in many
_IN_GROUPS = (4096, 256)  # group norm: 16 channels of 16×16
_PROJECTED = normalisation.normalisation_projected_kernel
_SECOND = normalisation_second.normalisation_second_kernel
_PARAMETERS = normalisation_parameters.normalisation_parameters_kernel

CASES = (
    KernelCase(
        "interpolate",
        interpolate.interpolate_kernel,
        {"BLOCK": interpolate.BLOCK},
        ("real", "fake"),
        ("output",),
        interpolate.BLOCK,
    ),
    KernelCase(
        "merged_batch",
        merged_batch.merged_batch_kernel,
        {"BLOCK": merged_batch.BLOCK},
        ("real", "fake"),
        ("output", "output", "output"),
        merged_batch.BLOCK,
    ),
    *_penalty(
        "gradient_norm_penalty",
        _FORWARD.gradient_norm_penalty_kernel,
        _FORWARD.LARGEST_BLOCK,
        "gradient",
        "direction",
        **_TWO_SIDED,
    ),
    *_penalty(
        "gradient_norm_penalty, p = ∞, one-sided, cubed, weights, mask",
        _FORWARD.gradient_norm_penalty_kernel,
        _FORWARD.LARGEST_BLOCK // 2,
        "gradient mask",
        "direction",
        "mask",
        **_MOST,
    ),
    *_penalty(
        "gradient_norm_penalty, long rows: parts of the norm",
        _FORWARD.norm_parts_kernel,
        _FORWARD.PART,
        "gradient",
        "",
        **_OF_NUMBERS,
    ),
    *_penalty(
        "gradient_norm_penalty, long rows",
        _FORWARD.direction_kernel,
        _FORWARD.PART,
        "gradient",
        "direction",
        **_OF_NUMBERS,
    ),
    *_penalty(
        "gradient_norm_penalty_backward",
        _BACKWARD.gradient_norm_penalty_backward_kernel,
        _BACKWARD.LARGEST_BLOCK,
        "gradient grad_direction",
        "result",
        **_TWO_SIDED,
        HAS_DIRECTION=True,
    ),
    *_penalty(
        "gradient_norm_penalty_backward, p = ∞, one-sided, cubed, weights, mask",
        _BACKWARD.gradient_norm_penalty_backward_kernel,
        _BACKWARD.LARGEST_BLOCK,
        "gradient grad_direction mask",
        "result",
        **_MOST,
        HAS_DIRECTION=True,
    ),
    *_penalty(
        "gradient_norm_penalty_backward, long rows: parts of the inner product",
        _BACKWARD.inner_parts_kernel,
        _FORWARD.PART,
        "gradient grad_direction",
        "",
        **_OF_NUMBERS,
    ),
    *_penalty(
        "gradient_norm_penalty_backward, long rows",
        _BACKWARD.backward_store_kernel,
        _FORWARD.PART,
        "gradient grad_direction",
        "result",
        **_OF_NUMBERS,
        HAS_DIRECTION=True,
    ),
    _normalisation("normalisation_vjp", _PROJECTED, _WHOLE, "u x", "result", BEFORE=True),
    _normalisation("normalisation_jvp", _PROJECTED, _IN_GROUPS, "u x", "result", BEFORE=False),
    _normalisation(
        "normalisation_vjp, long rows: sums",
        normalisation.normalisation_projected_sums_kernel,
        _LONG,
        "u x",
        "",
        BEFORE=True,
    ),
    _normalisation("normalisation_vjp, long rows", _PROJECTED, _LONG, "u x", "result", BEFORE=True),
    _normalisation("normalisation_second", _SECOND, _WHOLE, "delta tangent x", "result"),
    _normalisation(
        "normalisation_second, groups", _SECOND, _IN_GROUPS, "delta tangent x", "result"
    ),
    _normalisation(
        "normalisation_second, long rows: sums",
        normalisation_second.normalisation_second_sums_kernel,
        _LONG,
        "delta tangent x",
        "",
    ),
    _normalisation("normalisation_second, long rows", _SECOND, _LONG, "delta tangent x", "result"),
    _normalisation("normalisation_parameters", _PARAMETERS, _WHOLE, "delta x", ""),
    _normalisation("normalisation_parameters, groups", _PARAMETERS, _IN_GROUPS, "delta x", ""),
)


@cache
def compiled(case: KernelCase, element: str, target: str, aligned: bool = True) -> Any:
    """The kernel for one type of numbers and one target, with all that the compiler leaves."""
    constants, signature, attributes = dict(case.constants), {}, {}
    constants |= dict.fromkeys(case.ones, 1)
    for position, name in enumerate(case.kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_pointer"):
            per_sample = name.removesuffix("_pointer") in _PER_SAMPLE
            signature[name] = f"*{ACCUMULATION[element] if per_sample else element}"
            attributes[(position,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
            if aligned and name in _ALIGNED:
                attributes[(position,)] = [["tt.divisibility", 16]]
    return triton.compile(
        ASTSource(case.kernel, signature, constants, attributes),
        target=TARGETS[target],
        options={"enable_fp_fusion": True, "num_warps": case.warps},
    )
