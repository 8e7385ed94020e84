"""The device code of ``rmsprop_``: run on the host under a shim, compiled for real GPUs."""

import math
import re
import struct

import pytest
import torch

from tests.csrc.host_driver import (
    ELEMENT_CODES,
    compile_driver,
    machine_code,
    random_remainder,
    random_tensor,
    raw,
    run_driver,
)
from tests.harness import ROUNDING

PARAMETERS_PER_TABLE = {3: 111, 4: 90, 5: 76}
BYTES_PER_BLOCK = 8192

dtypes = pytest.mark.parametrize("dtype", list(ELEMENT_CODES), ids=str)
kinds = pytest.mark.parametrize(
    ("centered", "momentum"), [(False, 0.0), (False, 0.9), (True, 0.0), (True, 0.9)]
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return compile_driver("rmsprop_on_host", tmp_path_factory.mktemp("driver"))


def draw(counts, dtype, tensors):
    """For each parameter: itself, its gradient, its square average, and what else there is."""
    drawn = []
    for count in counts:
        some = [random_tensor(count, dtype) for _ in range(tensors)]
        # v > m², as for every history; twice of it, so that the root is well conditioned however
        # large a mean is drawn.
        past = some[3].double() if tensors > 3 else torch.zeros(count, dtype=torch.float64)
        some[2] = (2 * past**2 + 0.5 + torch.rand(count, dtype=torch.float64)).to(dtype)
        drawn.append(some)
    return drawn


def formula(some, centered, lr, alpha, eps, weight_decay, momentum, maximize, clip_value):
    """In float64, with the bound as the dtype holds it; the gradient stays."""
    bound = torch.tensor(clip_value, dtype=torch.float64).to(some[0].dtype).double().item()
    theta, g, v, *states = (tensor.double() for tensor in some)
    slope = (-g if maximize else g) + weight_decay * theta
    v = alpha * v + (1 - alpha) * slope**2
    spread, answer = v, [v]
    if centered:
        m = alpha * states[0] + (1 - alpha) * slope
        spread = v - m**2
        answer.append(m)
    d = slope / (spread.sqrt() + eps)
    if momentum:
        d = momentum * states[-1] + d
        answer.append(d)
    return [(theta - lr * d).clamp(-bound, bound), g, *answer]


def check(
    driver, counts, dtype, centered, momentum, remainders=None, place=0, alpha=0.9, **changes
):
    tensors = 3 + centered + bool(momentum)
    drawn = draw(counts, dtype, tensors)
    settings = {"lr": 0.125, "alpha": alpha, "eps": 1e-3, "weight_decay": 0.1, **changes}
    settings = {"maximize": False, "clip_value": 0.7, "momentum": momentum, **settings}
    message = [
        struct.pack(
            "=qqqqq", ELEMENT_CODES[dtype], centered, bool(momentum), settings["maximize"], place
        )
    ]
    names = ("lr", "alpha", "eps", "weight_decay", "momentum", "clip_value")
    message.append(struct.pack("=6dq", *(settings[name] for name in names), len(counts)))
    for index, some in enumerate(drawn):
        # The same for all of a parameter's tensors, or for each its own.
        given = remainders[index] if remainders else [0] * tensors
        message.append(struct.pack(f"={1 + tensors}q", some[0].numel(), *given))
        message += [raw(tensor) for tensor in some]
    answered = run_driver(driver, message)
    (launches,) = struct.unpack_from("=q", answered)
    filled = sum(count > 0 for count in counts)
    assert launches == math.ceil(filled / PARAMETERS_PER_TABLE[tensors])

    offset = 8
    for index, some in enumerate(drawn):
        for tensor, wanted in zip(some, formula(some, centered, **settings), strict=True):
            size = tensor.numel() * tensor.element_size()
            if size:
                piece = bytearray(answered[offset : offset + size])
                got = torch.frombuffer(piece, dtype=dtype).double()
                # Numbers of order 1: the largest terms that a step is the difference of.
                error = ((got - wanted).abs() / wanted.abs().clamp(min=2)).max().item()
                assert error <= ROUNDING[dtype], f"parameter {index}: off by {error:.1e}"
            offset += size
    assert offset == len(answered)


def test_no_parameters(driver):
    check(driver, [], torch.float32, False, 0.0)


@dtypes
@kinds
def test_empty_parameters(driver, dtype, centered, momentum):
    check(driver, [0] * 300, dtype, centered, momentum)
    check(driver, [0, 5, 0, 0, 1, 0], dtype, centered, momentum)


@dtypes
@kinds
def test_every_small_size_at_every_alignment(driver, dtype, centered, momentum):
    cases = [(n, r) for n in range(1, 24) for r in range(0, 16, dtype.itemsize)]
    remainders = [[r] * 5 for _, r in cases]
    tensors = 3 + centered + bool(momentum)
    remainders = [some[:tensors] for some in remainders]
    check(driver, [n for n, _ in cases], dtype, centered, momentum, remainders)


@dtypes
@kinds
def test_tensors_of_a_parameter_at_different_alignments(driver, dtype, centered, momentum):
    """As where the gradients are views of one flat buffer."""
    counts = [1, 2, 7, 31, 100, 2047, 2048, 2049, 5000] * 3
    tensors = 3 + centered + bool(momentum)
    remainders = [[random_remainder(dtype) for _ in range(tensors)] for _ in counts]
    check(driver, counts, dtype, centered, momentum, remainders)


@dtypes
@pytest.mark.parametrize("count", [65_535, 65_536, 65_537])
def test_large_parameters(driver, dtype, count):
    remainders = [[random_remainder(dtype)] * 4 for _ in range(2)]
    check(driver, [count, count], dtype, False, 0.9, remainders)


@dtypes
def test_sizes_around_a_block(driver, dtype):
    block = BYTES_PER_BLOCK // dtype.itemsize
    counts = [k * block + d for k in (1, 2, 3) for d in (-9, -1, 0, 1, 9)]
    check(driver, counts, dtype, True, 0.9, [[random_remainder(dtype)] * 5 for _ in counts])


@dtypes
@kinds
def test_a_thousand_parameters(driver, dtype, centered, momentum):
    counts = torch.randint(0, 100, (1000,)).tolist()
    check(driver, counts, dtype, centered, momentum)


@kinds
def test_full_tables(driver, centered, momentum):
    full = PARAMETERS_PER_TABLE[3 + centered + bool(momentum)]
    for parameters in (full - 1, full, full + 1, 2 * full, 2 * full + 1):
        check(driver, [7] * parameters, torch.float32, centered, momentum)


@dtypes
@kinds
@pytest.mark.parametrize(
    "changes",
    [
        {"maximize": True},
        {"weight_decay": 0.0},
        {"clip_value": math.inf},
        {"clip_value": 0.01},
        {"alpha": 0.3},
        {"place": 1},
        {"place": 2},
    ],
    ids=str,
)
def test_settings(driver, dtype, centered, momentum, changes):
    check(driver, [100, 33], dtype, centered, momentum, **changes)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_machine_code(architecture, tmp_path):
    """16-byte loads and stores, no spills, no local copy of the kernel's table."""
    used, kernels = machine_code("rmsprop_on_device.cu", architecture, tmp_path)
    assert len(used) == 3 * 4  # four instances
    assert set(used) == {"0"}
    if kernels is None:
        pytest.skip("no cuobjdump: Triton, which brings it, is not installed")
    # Two vectors of each tensor: all are read, and all but the gradient written. The compiler may
    # write a store twice, for two ways through the code.
    for kernel in kernels:
        loads = len(re.findall(r"\bLDG\.E\.128\b", kernel))
        stores = len(re.findall(r"\bSTG\.E\.128\b", kernel))
        assert (loads, stores) in {(6, 4), (6, 8), (10, 8), (10, 16)}
