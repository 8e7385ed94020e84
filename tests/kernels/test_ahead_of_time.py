"""The Triton kernels, compiled for real GPUs on a machine without one: no spills, wide accesses."""

import os
import re
import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from wgan_fast.kernels import interpolate, merged_batch  # noqa: E402
from wgan_fast.kernels.gradient_norm_penalty import (  # noqa: E402
    LARGEST_BLOCK,
    gradient_norm_penalty_backward_kernel,
    gradient_norm_penalty_kernel,
)

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
ELEMENTS = {"fp64": "fp64", "fp32": "fp32", "fp16": "fp32", "bf16": "fp32"}  # and accumulation
FAMILY = {"TARGET": 1.0, "ONE_SIDED": False}


def case(kernel, constants):
    """A kernel with what its launcher passes: which pointers hold (B,) numbers, which hold rows."""
    return pytest.param(kernel, constants, id=kernel.__name__)


CASES = [
    case(interpolate.interpolate_kernel, {"BLOCK": interpolate.BLOCK}),
    case(merged_batch.merged_batch_kernel, {"BLOCK": merged_batch.BLOCK}),
    case(gradient_norm_penalty_kernel, {**FAMILY, "BLOCK": LARGEST_BLOCK}),
    case(
        gradient_norm_penalty_backward_kernel,
        {**FAMILY, "HAS_DIRECTION": True, "BLOCK": LARGEST_BLOCK},
    ),
]
PER_SAMPLE = ("alpha", "norm", "penalty", "grad_norm", "grad_penalty")


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
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=target, options={"enable_fp_fusion": True})


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
