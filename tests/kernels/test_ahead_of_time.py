"""The Triton kernels, compiled for real GPUs on a machine without one: no spills, wide accesses.

For float32 the ledger's rows say that, and more: tests/bench/test_gpu_ledger.py.
"""

import os

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from bench.ledger import machine_code, traffic
from bench.ledger.cases import CASES, compiled

NOT_FLOAT32 = [
    pytest.param(case, element, id=f"{case.name}-{element}")
    for case in CASES
    for element in case.elements
    if element != "fp32"
]
BITS = {"fp64": 64, "fp16": 16, "bf16": 16}
ONE_OF_EACH = list({case.kernel: case for case in CASES}.values())


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize(("case", "element"), NOT_FLOAT32)
def test_other_types(case, element, target):
    built = compiled(case, element, target)
    code = machine_code.of_triton(built)
    assert code.spills == 0
    assert 0 < code.registers <= 128
    # Rows go through 16-byte accesses; numbers that a row has one of are read one by one.
    assert max(code.loads) == 128
    assert not case.writes or max(code.stores) == 128
    counted = traffic.accesses(built, case.block)
    size = BITS[element] // 8
    for kind, arguments, again in (("load", case.reads, case.cached), ("store", case.writes, ())):
        for name in arguments:
            times = (*arguments, *again).count(name)
            assert counted[kind][name] == size * times


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.name)
def test_odd_rows_compile_too(case):
    assert machine_code.of_triton(compiled(case, "fp32", "sm_90", aligned=False)).spills == 0


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.name)
def test_ones_compile_too(case):
    """Triton makes a constant of every integer that is 1: one row, rows of one number."""
    integers = tuple(
        name
        for name in case.kernel.arg_names
        if not name.endswith("_pointer") and name not in case.constants
    )
    all_ones = case._replace(name=f"{case.name}, ones", ones=integers)
    assert machine_code.of_triton(compiled(all_ones, "fp32", "sm_90")).spills == 0


def test_the_interpreter_is_off():
    assert os.environ.get("TRITON_INTERPRET", "0") == "0", "these tests would compile nothing"
