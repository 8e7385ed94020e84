"""4×4 convolutions of stride 2 by Winograd's algorithm, and their gradients, against autograd."""

import pytest
import torch
import torch.nn.functional as F

from tests.harness import assert_matches, opcheck
from wgan_fast.ops import winograd
from wgan_fast.ops.registration import EXTENSION_MISSING

OPS = torch.ops.wgan_fast
IMPLEMENTATIONS = {
    "dispatched": (OPS.winograd_gather, OPS.winograd_spread, OPS.winograd_weight),
    "plain": (winograd._plain_gather, winograd._plain_spread, winograd._plain_weight),
}
# samples, channels, height, width, maps, padding: one number; halves of tiles, vectors and blocks;
# pixels that no kernel sees; more padding than image; several blocks of tiles; no samples.
GEOMETRIES = (
    (1, 1, 4, 4, 1, (0, 0)), (3, 5, 7, 9, 3, (1, 1)), (2, 8, 8, 8, 16, (1, 1)),
    (2, 17, 6, 11, 9, (0, 1)), (5, 3, 2, 1, 20, (3, 2)), (40, 4, 16, 16, 6, (1, 1)),
    (0, 3, 8, 8, 5, (1, 1)),
)  # fmt: skip


def problem(samples, channels, height, width, maps, padding, dtype=torch.float64):
    images = torch.randn(samples, channels, height, width, dtype=dtype)
    weight = torch.randn(maps, channels, 4, 4, dtype=dtype)
    bias = torch.randn(maps, dtype=dtype)
    inside = zip((height, width), padding, strict=True)
    sizes = [(size + 2 * added - 4) // 2 + 1 for size, added in inside]
    return images, weight, bias, torch.randn(samples, maps, *sizes, dtype=dtype), list(padding)


def everything(ops, images, weight, bias, delta, padding):
    gather, spread, of_weight = ops
    return (
        gather(images, weight, bias, padding),
        gather(images, weight, None, padding),
        spread(delta, weight, list(images.shape[2:]), padding),
        of_weight(delta, images, padding),
    )


def by_autograd(images, weight, bias, delta, padding):
    images, weight = (one.double().requires_grad_() for one in (images, weight))
    result = F.conv2d(images, weight, None, 2, padding)
    gradients = torch.autograd.grad(result, [images, weight], delta.double())
    plain = result.detach()
    return plain + bias.double().view(-1, 1, 1), plain, *gradients


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_against_autograd(geometry, dtype, implementation):
    given = problem(*geometry, dtype=dtype)
    tolerance = 1e-13 if dtype == torch.float64 else 2e-5
    for found, expected in zip(
        everything(IMPLEMENTATIONS[implementation], *given), by_autograd(*given), strict=True
    ):
        assert found.dtype == dtype
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert_matches(found, expected, tolerance)


@pytest.mark.parametrize("wide", [16, 64])
def test_rounding(wide):
    """In float32 a few times the library's error, which is as far from the true sums as this."""
    given = problem(8, wide, 16, 16, wide, (1, 1), dtype=torch.float32)
    for ours, library, expected in zip(
        everything(IMPLEMENTATIONS["dispatched"], *given),
        everything(IMPLEMENTATIONS["plain"], *given),
        by_autograd(*given),
        strict=True,
    ):
        errors = [float((one.double() - expected).norm()) for one in (ours, library)]
        assert errors[0] <= 6 * errors[1]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_any_layout(implementation):
    images, weight, bias, delta, padding = problem(3, 8, 8, 6, 16, (1, 1))
    expected = by_autograd(images, weight, bias, delta, padding)
    for change in (
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
        lambda t: torch.stack([t, t], -1).flatten(-2)[..., ::2],
    ):
        given = change(images), change(weight), bias, change(delta), padding
        for found, right in zip(
            everything(IMPLEMENTATIONS[implementation], *given), expected, strict=True
        ):
            assert_matches(found, right, 1e-13)


@pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_threads(dtype, two_threads):
    """The same numbers in every call, and by other threads but for rounding."""
    given = problem(40, 24, 16, 16, 40, (1, 1), dtype=dtype)
    found = everything(IMPLEMENTATIONS["dispatched"], *given)
    again = everything(IMPLEMENTATIONS["dispatched"], *given)
    assert all(map(torch.equal, found, again))
    torch.set_num_threads(1)
    alone = everything(IMPLEMENTATIONS["dispatched"], *given)
    for one, other in zip(alone, found, strict=True):
        assert_matches(one, other.double(), 1e-13 if dtype == torch.float64 else 1e-5)


def test_samples_do_not_see_each_other():
    """Nor what they hold that is no number."""
    images, weight, bias, delta, padding = problem(4, 8, 8, 8, 8, (1, 1))
    before = everything(IMPLEMENTATIONS["dispatched"], images, weight, bias, delta, padding)
    images[1], delta[1] = float("nan"), float("inf")
    after = everything(IMPLEMENTATIONS["dispatched"], images, weight, bias, delta, padding)
    for one, other in zip(before[:3], after[:3], strict=True):
        assert torch.equal(one[[0, 2, 3]], other[[0, 2, 3]])
        assert not other[1].isfinite().any()
    assert after[3].isnan().all()


@pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here")
def test_memory_of_another_call_is_not_seen():
    """A thread keeps memory between calls of other sizes and dtypes."""
    for geometry in (GEOMETRIES[5], GEOMETRIES[1], GEOMETRIES[3]):
        for dtype in (torch.float32, torch.float64):
            given = problem(*geometry, dtype=dtype)
            for found, expected in zip(
                everything(IMPLEMENTATIONS["dispatched"], *given), by_autograd(*given), strict=True
            ):
                assert_matches(found, expected, 1e-13 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_opcheck(dtype):
    images, weight, bias, delta, padding = problem(3, 5, 7, 9, 3, (1, 1), dtype=dtype)
    opcheck(OPS.winograd_gather.default, (images, weight, bias, padding))
    opcheck(OPS.winograd_gather.default, (images, weight, None, padding))
    opcheck(OPS.winograd_spread.default, (delta, weight, [7, 9], padding))
    opcheck(OPS.winograd_weight.default, (delta, images, padding))


@pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("channels", "maps"), [(0, 3), (3, 0)])
def test_no_channels_or_maps(channels, maps, dtype):
    given = problem(2, channels, 8, 8, maps, (1, 1), dtype=dtype)
    biased, *others = everything(IMPLEMENTATIONS["dispatched"], *given)
    assert torch.equal(biased, given[2].view(-1, 1, 1).expand(2, maps, 4, 4))
    shapes = [(2, maps, 4, 4), (2, channels, 8, 8), (maps, channels, 4, 4)]
    for found, shape in zip(others, shapes, strict=True):
        assert found.shape == shape
        assert not found.any()


@pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here")
def test_without_onednn(monkeypatch):
    """Whose microkernel is not taken where it is turned off."""
    given = problem(*GEOMETRIES[5], dtype=torch.float32)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    found = everything(IMPLEMENTATIONS["dispatched"], *given)
    for one, other in zip(found, by_autograd(*given), strict=True):
        assert_matches(one, other, 2e-5)


WRONG = {
    "three axes": (lambda i, w, b, d, p: OPS.winograd_gather(i[0], w, b, p), "images must be"),
    "another kernel": (
        lambda i, w, b, d, p: OPS.winograd_gather(i, w[..., :3], b, p),
        r"weight must be \(M, C, 4, 4\)",
    ),
    "other channels": (lambda i, w, b, d, p: OPS.winograd_gather(i[:, :2], w, b, p), "weight must"),
    "other dtypes": (lambda i, w, b, d, p: OPS.winograd_gather(i.float(), w, b, p), "one dtype"),
    "another bias": (lambda i, w, b, d, p: OPS.winograd_gather(i, w, b[:1], p), "bias must be"),
    "negative padding": (lambda i, w, b, d, p: OPS.winograd_gather(i, w, b, [-1, 0]), "padding"),
    "too few pixels": (lambda i, w, b, d, p: OPS.winograd_gather(i[..., :1], w, b, p), "at least"),
    "another size": (lambda i, w, b, d, p: OPS.winograd_spread(d, w, [9, 9], p), "maps must be"),
    "flat maps": (lambda i, w, b, d, p: OPS.winograd_spread(d[0], w, [7, 9], p), "maps must be"),
    "other maps": (lambda i, w, b, d, p: OPS.winograd_weight(d[:1], i, p), "maps must be"),
    "images of another dtype": (
        lambda i, w, b, d, p: OPS.winograd_weight(d, i.float(), p),
        "images must be Double",
    ),
}


@pytest.mark.skipif(EXTENSION_MISSING is not None, reason="no extension here")
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name):
    call, said = WRONG[name]
    with pytest.raises(RuntimeError, match=said):
        call(*problem(*GEOMETRIES[1]))
