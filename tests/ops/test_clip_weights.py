import pytest
import torch

from tests.harness import DTYPES, opcheck
from wgan_fast import ops
from wgan_fast.ops.clip_weights import _plain

IMPLEMENTATIONS = {"dispatched": ops.clip_weights_, "plain": _plain}


def critic_weights():
    """A critic's parameters and the odd ones: all dtypes and layouts, empty, one element, many."""
    tensors = [torch.randn(shape) for shape in ((3, 5), (1,), (0,), (), (64, 3, 4, 4), (70_001,))]
    tensors += [torch.randn(129).to(dtype) for dtype in DTYPES]
    tensors.append(torch.randn(8, 3, 4, 4).contiguous(memory_format=torch.channels_last))
    tensors.append(torch.randn(6, 9).t())
    tensors.append(torch.randn(40)[1:38])  # not aligned to a vector
    tensors.append(torch.randn(10, 8)[:, ::2])  # with holes, which must stay as they are
    tensors += [torch.randn(3) for _ in range(1000)]
    return tensors


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("clip_value", [0.01, 0.5, 100.0])
def test_same_bits_as_clamp(clip_value, implementation):
    tensors = critic_weights()
    expected = [tensor.clone().clamp_(-clip_value, clip_value) for tensor in tensors]
    IMPLEMENTATIONS[implementation](tensors, clip_value)
    for ours, theirs in zip(tensors, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_neighbours_stay():
    base = torch.randn(10, 8) * 10
    before = base.clone()
    ops.clip_weights_([base[:, ::2], base.view(-1)[:0]], 0.1)
    assert torch.equal(base[:, 1::2], before[:, 1::2])
    inside = torch.randn(1000) * 10
    before = inside.clone()
    ops.clip_weights_([inside[3:995]], 0.1)
    assert torch.equal(inside[:3], before[:3])
    assert torch.equal(inside[995:], before[995:])
    assert inside[3:995].abs().max() <= 0.1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_stays_and_infinity_goes(dtype, implementation):
    for length in (4, 67):  # in the vector part and in the tail
        weights = torch.zeros(length, dtype=dtype)
        weights[0], weights[1], weights[2], weights[-1] = torch.tensor(
            [float("nan"), float("inf"), float("-inf"), float("nan")]
        )
        IMPLEMENTATIONS[implementation]([weights], 0.25)
        assert weights.isnan().nonzero().flatten().tolist() == [0, length - 1]
        assert weights[1:3].tolist() == [0.25, -0.25]


def test_no_parameters():
    assert ops.clip_weights_([], 0.1) is None


def test_a_graph_notices():
    weights = torch.randn(3, requires_grad=True)
    output = (weights * weights).sum()
    with torch.no_grad():
        ops.clip_weights_([weights], 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


def test_opcheck():
    tensors = [torch.randn(3, 4), torch.randn(5), torch.randn(2, dtype=torch.float64)]
    opcheck(torch.ops.wgan_fast.clip_weights_.default, (tensors, 0.3))
