"""``clip_weights_`` on a GPU: agreement with ``clamp_``, streams, and CUDA graphs."""

import pytest
import torch

from wgan_fast.ops import clip_weights_, status

pytestmark = pytest.mark.cuda
DEVICE = "cuda"


@pytest.fixture(autouse=True)
def compiled():
    if status()["clip_weights_"][DEVICE] == "plain PyTorch":
        pytest.skip("the extension was built without CUDA")


def parameters():
    """Every dtype, empty and large and unaligned and channels_last and strided tensors."""
    drawn = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        flat = torch.randn(70_001, device=DEVICE).to(dtype)
        weights = torch.randn(8, 6, 5, 3, device=DEVICE).to(dtype)
        drawn += [flat[:0], flat[1:20], flat[21:65_560], weights[0, 0].clone(), weights[1, :, ::2]]
        drawn += [weights[2:].contiguous(memory_format=torch.channels_last)]
    drawn[1][3], drawn[2][77], drawn[2][78] = torch.nan, torch.inf, -torch.inf
    return drawn + [torch.randn(7, device=DEVICE) for _ in range(450)]  # more than two tables


def clamped(tensors, clip_value):
    return [tensor.clone().clamp_(-clip_value, clip_value) for tensor in tensors]


def check(tensors, expected):
    for tensor, right in zip(tensors, expected, strict=True):
        torch.testing.assert_close(tensor, right, rtol=0, atol=0, equal_nan=True)


def test_equals_clamp():
    tensors = parameters()
    expected = clamped(tensors, 0.3)
    clip_weights_(tensors, 0.3)
    check(tensors, expected)


def test_cpu_tensors_among_them():
    tensors = [torch.randn(9, device=DEVICE), torch.randn(9)]
    expected = clamped(tensors, 0.3)
    clip_weights_(tensors, 0.3)
    check(tensors, expected)


def test_runs_on_the_current_stream():
    stream = torch.cuda.Stream()
    large = torch.randn(2048, 2048, device=DEVICE)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(20):
            large = (large @ large).div_(100)
        expected = large.clamp(-0.3, 0.3)
        clip_weights_([large], 0.3)
    stream.synchronize()
    check([large], [expected])


def test_in_a_cuda_graph():
    tensors = [torch.zeros(1000, device=DEVICE) for _ in range(300)]
    clip_weights_(tensors, 0.3)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        clip_weights_(tensors, 0.3)
    for _ in range(3):
        for tensor in tensors:
            tensor.normal_()
        expected = clamped(tensors, 0.3)
        graph.replay()
        check(tensors, expected)
