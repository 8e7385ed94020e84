"""The device code of ``clip_weights_``: run on the host under a shim, compiled for real GPUs."""

import math
import re
import struct

import pytest
import torch

from tests.csrc.host_driver import (
    BITS,
    ELEMENT_CODES,
    compile_driver,
    machine_code,
    random_remainder,
    random_tensor,
    raw,
    run_driver,
)

TENSORS_PER_TABLE = 200
BYTES_PER_BLOCK = 16384

dtypes = pytest.mark.parametrize("dtype", list(ELEMENT_CODES), ids=str)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return compile_driver("clip_weights_on_host", tmp_path_factory.mktemp("driver"))


def clip_on_host(driver, tensors, clip_value, remainders=None):
    """The tensors as the device code leaves them, and its number of launches."""
    dtype = tensors[0].dtype if tensors else torch.float32
    remainders = remainders or [0] * len(tensors)
    message = [struct.pack("=qdq", ELEMENT_CODES[dtype], clip_value, len(tensors))]
    for tensor, remainder in zip(tensors, remainders, strict=True):
        message += [struct.pack("=qq", tensor.numel(), remainder), raw(tensor)]
    answered = run_driver(driver, message)
    (launches,) = struct.unpack_from("=q", answered)
    answer, offset = [], 8
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        piece = bytearray(answered[offset : offset + size])
        answer.append(torch.frombuffer(piece, dtype=dtype) if size else tensor.clone())
        offset += size
    assert offset == len(answered)
    return answer, launches


def expected(tensor, clip_value):
    """float64 clamp to the bound as the dtype holds it; NaN unchanged, bit by bit."""
    bound = torch.tensor(clip_value, dtype=torch.float64).to(tensor.dtype).double().item()
    clamped = tensor.double().clamp(-bound, bound).to(tensor.dtype)
    bits = BITS[tensor.dtype]
    return torch.where(tensor.isnan(), tensor.view(bits), clamped.view(bits))


def check(driver, tensors, clip_value, remainders=None):
    answers, launches = clip_on_host(driver, tensors, clip_value, remainders)
    for index, (tensor, answer) in enumerate(zip(tensors, answers, strict=True)):
        same = torch.equal(answer.view(BITS[tensor.dtype]), expected(tensor, clip_value))
        assert same, f"tensor {index}, {tensor.numel()} numbers"
    assert launches == math.ceil(sum(t.numel() > 0 for t in tensors) / TENSORS_PER_TABLE)


def test_no_tensors(driver):
    assert clip_on_host(driver, [], 0.5) == ([], 0)


@dtypes
def test_empty_tensors(driver, dtype):
    check(driver, [random_tensor(0, dtype)] * 300, 0.5)
    check(driver, [random_tensor(count, dtype) for count in (0, 5, 0, 0, 3, 0)], 0.5)


@dtypes
def test_every_small_size_at_every_alignment(driver, dtype):
    cases = [(n, r) for n in range(1, 40) for r in range(0, 16, dtype.itemsize)]
    tensors = [random_tensor(count, dtype) for count, _ in cases]
    check(driver, tensors, 0.7, [remainder for _, remainder in cases])


@dtypes
@pytest.mark.parametrize("count", [65_535, 65_536, 65_537])
def test_large_tensors(driver, dtype, count):
    remainders = list(range(0, 16, dtype.itemsize))
    check(driver, [random_tensor(count, dtype) for _ in remainders], 0.01, remainders)


@dtypes
def test_sizes_around_a_block(driver, dtype):
    block = BYTES_PER_BLOCK // dtype.itemsize
    counts = [k * block + d for k in (1, 2, 3) for d in (-9, -1, 0, 1, 9)]
    tensors = [random_tensor(count, dtype) for count in counts]
    check(driver, tensors, 0.01, [random_remainder(dtype) for _ in counts])


@dtypes
def test_a_thousand_tensors(driver, dtype):
    counts = torch.randint(0, 400, (1000,)).tolist()
    tensors = [random_tensor(count, dtype) for count in counts]
    check(driver, tensors, 0.3, [random_remainder(dtype) for _ in counts])


@pytest.mark.parametrize("tensors", [199, 200, 201, 400, 401])
def test_full_tables(driver, tensors):
    # check() counts the launches.
    check(driver, [random_tensor(7, torch.float32) for _ in range(tensors)], 0.3)


@dtypes
@pytest.mark.parametrize("clip_value", [0.01, 0.25, 1e-30, 3e4])
def test_special_numbers(driver, dtype, clip_value):
    inf, nan, tiny = math.inf, math.nan, torch.finfo(dtype).tiny
    bound = [clip_value, -clip_value, clip_value * (1 + 1e-2), -clip_value * (1 - 1e-2)]
    numbers = torch.tensor(
        [inf, -inf, nan, -nan, 0.0, -0.0, tiny, -tiny, *bound], dtype=torch.float64
    ).to(dtype)
    odd_nan = numbers[2:3].view(BITS[dtype]) + 3  # a NaN with a payload
    check(driver, [torch.cat([numbers, odd_nan.view(dtype)]).repeat(5)], clip_value)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_machine_code(architecture, tmp_path):
    """16-byte loads and stores, no spills, no local copy of the kernel's table."""
    used, kernels = machine_code("clip_weights_on_device.cu", architecture, tmp_path)
    assert len(used) == 3 * 3  # three instances
    assert set(used) == {"0"}
    if kernels is None:
        pytest.skip("no cuobjdump: Triton, which brings it, is not installed")
    for kernel in kernels:
        assert len(re.findall(r"\bLDG\.E\.128\b", kernel)) == 4
        assert len(re.findall(r"\bSTG\.E\.128\b", kernel)) == 4
