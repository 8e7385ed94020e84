"""The ledger of what compilers make of the GPU kernels: true today, and the one in the tree."""

import re

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from bench import gpu_ledger
from bench.ledger import machine_code, occupancy, traffic
from bench.ledger.cases import CASES, TARGETS
from bench.ledger.rows import Row, nvcc_version

IN_FLOAT32 = [case for case in CASES if "fp32" in case.elements]
SECTIONS = {
    section.title: section for section in (gpu_ledger.TRITON, gpu_ledger.CUDA, gpu_ledger.LAUNCHES)
}


def committed(title: str) -> str:
    text = gpu_ledger.PATH.read_text(encoding="utf-8")
    return re.search(rf"^## {title}$.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[0].rstrip()


def assert_as_committed(section: gpu_ledger.Section) -> None:
    """The same text, where the same versions made both; other compilers use other registers."""
    there = committed(section.title)
    if f"\nBy {section.versions}.\n" in there:
        assert gpu_ledger.written(section).rstrip() == there, "run: python -m bench.gpu_ledger"


def test_triton():
    rows = gpu_ledger.triton_rows()
    assert {row.kernel: row.faults() for row in rows if row.faults()} == {}
    assert {row.kernel for row in rows} == {case.name for case in IN_FLOAT32}
    assert_as_committed(gpu_ledger.TRITON)


def test_every_kernel_and_target_is_in_the_ledger():
    there = committed("Triton kernels")
    for case in IN_FLOAT32:
        for target in TARGETS:
            assert f"\n| {case.name} | {target} | " in there, "run: python -m bench.gpu_ledger"


def test_cuda():
    if nvcc_version() is None:
        pytest.skip("no CUDA compiler: nvcc is not on PATH")
    rows = gpu_ledger.cuda_rows()
    assert {row.kernel: row.faults() for row in rows if row.faults()} == {}
    assert_as_committed(gpu_ledger.CUDA)


def test_launches():
    assert_as_committed(gpu_ledger.LAUNCHES)
    rows = re.findall(r"critic.*? \| (\d+) \| (\d+) \| \d+ \|", gpu_ledger.LAUNCHES.text())
    assert len(rows) == 2
    assert all(int(ours) < int(reference) for reference, ours in rows)


def code(**changes):
    made = machine_code.MachineCode(32, 0, 0, 128, [128, 128], [128])
    return made._replace(**changes)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"code": code(spills=8)}, "spills 8"),
        ({"code": code(loads=[32, 64])}, "loads of 64 bits at most"),
        ({"code": code(stores=[32])}, "stores of 32 bits at most"),
        ({"read": 12}, "reads 12 and writes 4 bytes per element, not 8 and 4"),
        ({"written": 8}, "reads 8 and writes 8"),
        ({"counted_twice": False}, "the machine code moves other bytes"),
    ],
)
def test_a_fault_is_seen(change, fault):
    good = Row("kernel", "sm_90", code(), 8, 4, 8, 4, "", True)
    assert good.faults() == []
    assert fault in good._replace(**change).faults()[0]


def test_the_two_counts():
    block = 128 * 4
    counted = {"load": {"real": 4, "fake": 4}, "store": {"output": 4}}
    assert traffic.agrees(counted, code(), block)
    assert not traffic.agrees(counted, code(loads=[128]), block)
    assert not traffic.agrees(counted, code(stores=[32] * 4), block)


@pytest.mark.parametrize(
    ("target", "changes", "expected"),
    [
        ("sm_90", {}, 1.0),  # 16 blocks of 4 warps
        ("sm_90", {"registers": 33}, 0.75),  # 40 registers: 51 warps, 12 for each scheduler
        ("sm_90", {"registers": 255, "threads": 256}, 0.125),
        ("sm_90", {"threads": 32}, 0.5),  # 32 blocks of one warp
        ("sm_80", {"shared": 81 * 1024}, 2 * 4 / 64),
        ("gfx942", {"threads": 256, "registers": 64}, 1.0),
        ("gfx942", {"threads": 256, "registers": 65}, 0.875),  # 72 registers: 7 waves per SIMD
    ],
)
def test_occupancy(target, changes, expected):
    assert occupancy.occupancy(code(**changes), target) == expected
