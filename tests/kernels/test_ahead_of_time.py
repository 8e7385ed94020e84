"""The Triton kernels, compiled for real GPUs on a machine without one: no spills, wide accesses."""

import math
import os
import re
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from wgan_fast.kernels import gradient_norm_penalty as forward  # noqa: E402
from wgan_fast.kernels import gradient_norm_penalty_backward as backward  # noqa: E402
from wgan_fast.kernels import interpolate, merged_batch  # noqa: E402
from wgan_fast.kernels.penalty_family import phi_options  # noqa: E402

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
ELEMENTS = {"fp64": "fp64", "fp32": "fp32", "fp16": "fp32", "bf16": "fp32"}  # and accumulation


def case(kernel, block, name="", **constants):
    """A kernel with the compile-time options that its launcher passes."""
    return pytest.param(kernel, {**constants, "BLOCK": block}, id=kernel.__name__ + name)


PHI = phi_options((1.0, False, 2.0, 2.0))
PLAIN = {"HAS_WEIGHTS": False, "HAS_MASK": False}
ODD = phi_options((0.5, True, 3.0, math.inf))
EVERYTHING = {"HAS_WEIGHTS": True, "HAS_MASK": True}
GIVEN = {"HAS_DIRECTION": True}
ONE_BLOCK, ONE_BLOCK_BACK = forward.LARGEST_BLOCK, backward.LARGEST_BLOCK
# Kernels that go through rows; (kernel, options).
CASES = [
    case(interpolate.interpolate_kernel, interpolate.BLOCK),
    case(merged_batch.merged_batch_kernel, merged_batch.BLOCK),
    case(forward.gradient_norm_penalty_kernel, ONE_BLOCK, **PHI, **PLAIN),
    case(forward.gradient_norm_penalty_kernel, ONE_BLOCK, "-everything", **ODD, **EVERYTHING),
    case(forward.direction_kernel, forward.PART, P=2, HAS_MASK=False),
    case(backward.gradient_norm_penalty_backward_kernel, ONE_BLOCK_BACK, **PHI, **PLAIN, **GIVEN),
    case(
        backward.gradient_norm_penalty_backward_kernel,
        ONE_BLOCK_BACK,
        "-everything",
        **ODD,
        **EVERYTHING,
        **GIVEN,
    ),
    case(backward.backward_store_kernel, forward.PART, P=2, HAS_MASK=True, **GIVEN),
]
# Kernels that give a few numbers for each row, or parts of them.
REDUCTIONS = [
    case(forward.norm_parts_kernel, forward.PART, P=2, HAS_MASK=False),
    case(backward.inner_parts_kernel, forward.PART, P=2, HAS_MASK=False),
    case(forward.norm_finish_kernel, 1024, **ODD, HAS_WEIGHTS=True),
    case(backward.inner_finish_kernel, 1024, **ODD, HAS_WEIGHTS=True, **GIVEN, HAS_PARTS=True),
]
PER_SAMPLE = (
    "alpha", "norm", "penalty", "grad_norm", "grad_penalty", "weight", "scale", "along", "across",
    "total", "count", "inner",
)  # fmt: skip


def compiled(kernel, constants, element, target, aligned=True):
    signature, attributes = {}, {}
    for position, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_pointer"):
            per_sample = name.removesuffix("_pointer") in PER_SAMPLE
            signature[name] = f"*{ELEMENTS[element] if per_sample else element}"
            attributes[(position,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
            if aligned and name in ("length", "part"):
                attributes[(position,)] = [["tt.divisibility", 16]]
    options = {"enable_fp_fusion": True}
    if kernel.__module__ in (forward.__name__, backward.__name__):
        # Twice the numbers of float64 would not fit a block: the launchers halve it.
        if element == "fp64" and constants["BLOCK"] > 1024:
            constants = {**constants, "BLOCK": constants["BLOCK"] // 2}
        options["num_warps"] = forward.warps_for(constants["BLOCK"], 8 if element == "fp64" else 4)
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=target, options=options)


def resource_usage(kernel, path: Path) -> dict[str, int]:
    """Registers, stack and so on of a cubin, by the cuobjdump that Triton ships."""
    cuobjdump = triton.knobs.nvidia.cuobjdump.path
    path.write_bytes(kernel.asm["cubin"])
    said = subprocess.run(
        [cuobjdump, "-res-usage", path], capture_output=True, text=True, check=True
    ).stdout
    return {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", said)}


@pytest.mark.parametrize("target", [name for name in TARGETS if name.startswith("sm")])
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(("kernel", "constants"), CASES)
def test_nvidia(kernel, constants, element, target, tmp_path):
    built = compiled(kernel, constants, element, TARGETS[target])
    usage = resource_usage(built, tmp_path / "kernel.cubin")
    assert usage["STACK"] == usage["LOCAL"] == 0, f"spills: {usage}"
    assert 0 < usage["REG"] <= 128
    # Rows go through 16-byte accesses; (B,) numbers are read one by one.
    assert set(re.findall(r"st\.global\.(v\d)", built.asm["ptx"])) <= {"v4", "v2"}
    widths = re.findall(r"(ld|st)\.global(?:\.\w+::\w+)*\.v(\d)\.b(\d+)", built.asm["ptx"])
    assert {kind for kind, *_ in widths} == {"ld", "st"}
    assert {int(count) * int(bits) for _, count, bits in widths} == {128}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("element", ["fp64", "bf16"])
@pytest.mark.parametrize(("kernel", "constants"), REDUCTIONS)
def test_reductions(kernel, constants, element, target, tmp_path):
    built = compiled(kernel, constants, element, TARGETS[target])
    if target == "gfx942":
        assert int(re.search(r"\.vgpr_spill_count:\s*(\d+)", built.asm["amdgcn"])[1]) == 0
    else:
        usage = resource_usage(built, tmp_path / "kernel.cubin")
        assert usage["STACK"] == usage["LOCAL"] == 0, f"spills: {usage}"


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(("kernel", "constants"), CASES)
def test_amd(kernel, constants, element):
    code = compiled(kernel, constants, element, TARGETS["gfx942"]).asm["amdgcn"]
    assert int(re.search(r"\.vgpr_spill_count:\s*(\d+)", code)[1]) == 0
    assert int(re.search(r"\.sgpr_spill_count:\s*(\d+)", code)[1]) == 0
    assert "load_dwordx4" in code
    assert "store_dwordx4" in code


@pytest.mark.parametrize(("kernel", "constants"), CASES)
def test_odd_rows_compile_too(kernel, constants, tmp_path):
    built = compiled(kernel, constants, "fp32", TARGETS["sm_90"], aligned=False)
    assert resource_usage(built, tmp_path / "kernel.cubin")["LOCAL"] == 0


def test_the_interpreter_is_off():
    assert os.environ.get("TRITON_INTERPRET", "0") == "0", "these tests would compile nothing"
