"""Products of matrices, whatever lies how in memory, against float64."""

import pytest
import torch

from tests.harness import assert_matches, opcheck
from wgan_fast.ops import product

OPS = torch.ops.wgan_fast
IMPLEMENTATIONS = {"dispatched": OPS.product, "plain": product._plain}
# (m, n, k): one number; whole and partial vectors, blocks of rows, columns and sums; none at all.
SIZES = (
    (1, 1, 1), (3, 5, 7), (64, 256, 256), (65, 16, 257), (9, 300, 40), (130, 31, 600),
    (0, 4, 3), (4, 0, 3), (4, 3, 0),
)  # fmt: skip
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6}


def layouts(matrix):
    wide = torch.full((matrix.shape[0], 2 * matrix.shape[1] + 3), float("nan"), dtype=matrix.dtype)
    found = {"rows": matrix, "columns": matrix.t().contiguous().t()}
    found["part of wider rows"] = wide[:, 1 : 1 + matrix.shape[1]].copy_(matrix)
    found["every second number"] = wide[:, : 2 * matrix.shape[1] : 2].clone().copy_(matrix)
    strided = wide.new_full((matrix.shape[0], 2 * matrix.shape[1]), float("nan"))
    found["strided"] = strided[:, ::2].copy_(matrix)
    return found


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_against_float64(sizes, dtype, implementation):
    m, n, k = sizes
    a, b = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
    plain = a.double() @ b.double()
    for name, left in layouts(a).items():
        for other, right in layouts(b).items():
            for added in (None, torch.randn(n), torch.randn(m, n), torch.randn(n, m).t()):
                added = None if added is None else added.to(dtype)
                found = IMPLEMENTATIONS[implementation](left, right, added)
                expected = plain if added is None else plain + added.double()
                terms = a.double().abs() @ b.double().abs()
                terms = terms if added is None else terms + added.double().abs()
                assert found.dtype == dtype
                assert found.is_contiguous(), (name, other)
                assert_matches(found, expected, TOLERANCE[dtype], terms)


def test_rows_far_from_each_other():
    """Further than the microkernel's offsets reach; the memory is never touched but for a few."""
    far = torch.empty(32, 1 << 24)[:, :64]
    near = torch.randn(32, 64)
    far.copy_(near)
    b = torch.randn(64, 16)
    assert_matches(OPS.product(far, b), near.double() @ b.double(), 5e-6)


def test_without_onednn(monkeypatch):
    """Whose microkernel is not taken where it is turned off."""
    a, b = torch.randn(70, 80), torch.randn(80, 90)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert torch.equal(OPS.product(a, b), a @ b)


def test_a_row_for_all():
    """An expanded tensor lies in no order of rows or columns."""
    row, b = torch.randn(1, 40), torch.randn(40, 24)
    expected = (row.double() @ b.double()).expand(9, 24)
    assert_matches(OPS.product(row.expand(9, 40), b), expected, 5e-6)
    assert_matches(OPS.product(torch.eye(9), row.expand(9, 40)), row.double().expand(9, 40), 1e-7)


@pytest.mark.parametrize("sizes", [(200, 40, 300), (40, 200, 300)], ids=str)
def test_threads(sizes, two_threads):
    m, n, k = sizes
    a, b, added = torch.randn(m, k), torch.randn(k, n), torch.randn(n)
    found = OPS.product(a, b, added)
    assert torch.equal(found, OPS.product(a, b, added))
    torch.set_num_threads(1)
    torch.testing.assert_close(OPS.product(a, b, added), found)


def test_no_number_is_lost():
    a, b = torch.randn(70, 300), torch.randn(300, 20)
    a[3, 299], b[5, 7] = float("nan"), float("inf")
    found = OPS.product(a, b)
    assert found[3].isnan().all()
    assert not found[:, 7].isfinite().any()
    found[3], found[:, 7] = 0, 0
    assert found.isfinite().all()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_opcheck(dtype):
    a, b, added = (torch.randn(*size, dtype=dtype) for size in ((5, 7), (7, 3), (3,)))
    for last in (None, added):
        opcheck(OPS.product.default, (a, b, last))


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(RuntimeError, match=r"\[5, 7\] and \[5, 7\]|cannot be multiplied"):
        OPS.product(torch.randn(5, 7), torch.randn(5, 7))
