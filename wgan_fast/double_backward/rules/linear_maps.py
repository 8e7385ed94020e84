"""Ops that are linear in one tensor and have no parameters: views, sums, padding, resizing.

The tangent takes the same op as the input did; the cotangent takes its transpose. Sizes are kept
without the batch's, so that the derivatives can run on a part of the recorded rows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.rules.base import Rule, Tensors

aten = torch.ops.aten
Transpose = Callable[..., Tensor]


def _same_axis_zero(samples: int, args: tuple[Any, ...], result: Any) -> bool:
    return bool(result.dim()) and result.shape[0] == args[0].shape[0]


def _unpadded_batch(samples: int, args: tuple[Any, ...], result: Any) -> bool:
    # Two numbers per axis, the last axis first; a batch may be cropped by what it is padded by.
    return len(args[1]) < 2 * args[0].dim() or not any(args[1][-2:])


class LinearMap(Rule):
    """y = L(x); ``transpose(delta, shape of x, *other arguments)`` is Lᵀ delta."""

    name = "linear"
    in_place_safe = True

    def __init__(
        self,
        transpose: Transpose,
        keeps: Callable[[int, tuple[Any, ...], Any], bool] = lambda samples, args, result: False,
    ) -> None:
        self.transpose = transpose
        self.keeps = keeps

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return self.keeps(samples, args, result)

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        x = args[0]
        first = result.shape[0] if isinstance(result, Tensor) and result.dim() else 1
        node.kept = (x.shape, first, x.dtype, args[1:], kwargs)

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        shape, first, dtype, args, kwargs = node.kept
        rows = delta.shape[0] if isinstance(delta, Tensor) and delta.dim() else first
        if rows != first:
            shape = (rows * shape[0] // first, *shape[1:])
        result = self.transpose(delta, shape, *args, **kwargs)
        return [result if result.dtype == dtype else result.to(dtype)]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        _, _, _, args, kwargs = node.kept
        return node.op(tangents[0], *args, **kwargs)


class View(LinearMap):
    """Another shape for the same numbers in the same order."""

    def __init__(self) -> None:
        super().__init__(lambda delta, shape, *_: delta.reshape(shape), self._rows)

    @staticmethod
    def _rows(samples: int, args: tuple[Any, ...], result: Any) -> bool:
        # The numbers keep their order, the batch is their slowest axis: whole samples per row.
        return bool(result.dim()) and result.shape[0] % samples == 0

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        super().record(node, args, kwargs, result)
        node.kept = (*node.kept[:3], result.shape, node.kept[4])

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        shape, first, *_ = node.kept
        if delta.dim() and delta.shape[0] != first:
            shape = (delta.shape[0] * shape[0] // first, *shape[1:])
        return [delta.reshape(shape)]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        shape, first, _, sizes, _ = node.kept
        (tangent,) = tangents
        assert tangent is not None
        if tangent.shape != shape:
            sizes = (tangent.shape[0] * first // shape[0], *sizes[1:])
        return tangent.reshape(sizes)


def _first_axis_stays(samples: int, args: tuple[Any, ...], result: Any) -> bool:
    return args[1][0] % args[0].dim() == 0


def _not_axis_zero(position: int, default: int = 0) -> Callable[..., bool]:
    """The op works along the axis that argument ``position`` names; the batch's must be another."""

    def keeps(samples: int, args: tuple[Any, ...], result: Any) -> bool:
        axes = args[position] if len(args) > position else default
        axes = axes if isinstance(axes, (list, tuple)) else [axes]
        return bool(axes) and all(axis % args[0].dim() != 0 for axis in axes)

    return keeps


def _reduction_rows(samples: int, args: tuple[Any, ...], result: Any) -> bool:
    axes = args[1] if len(args) > 1 else None
    if not axes:  # all axes
        return False
    return all(axis % args[0].dim() != 0 for axis in ([axes] if isinstance(axes, int) else axes))


def _transposed_permutation(delta: Tensor, shape: Any, axes: list[int]) -> Tensor:
    inverse = [0] * len(axes)
    for position, axis in enumerate(axes):
        inverse[axis % len(axes)] = position
    return delta.permute(inverse)


def _spread(delta: Tensor, shape: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    """The transpose of a sum: every summand gets the sum's cotangent."""
    axes = range(len(shape)) if not dim else [dim] if isinstance(dim, int) else dim
    if not keepdim:
        for axis in sorted(axis % len(shape) for axis in axes):
            delta = delta.unsqueeze(axis)
    return delta.expand(shape)


def _spread_mean(
    delta: Tensor, shape: Any, dim: Any = None, keepdim: bool = False, **_: Any
) -> Tensor:
    axes = range(len(shape)) if not dim else [dim] if isinstance(dim, int) else dim
    count = 1
    for axis in axes:
        count *= shape[axis]
    return _spread(delta, shape, dim, keepdim) / count


def _upsampled(backward: Any) -> Transpose:
    def transpose(delta: Tensor, shape: Any, size: Any, *rest: Any, **kwargs: Any) -> Tensor:
        return backward(delta.contiguous(), size or delta.shape[2:], shape, *rest, **kwargs)

    return transpose


def _padded(backward: Any) -> Transpose:
    def transpose(delta: Tensor, shape: Any, padding: list[int]) -> Tensor:
        return backward(delta, delta.new_empty(1).expand(shape), padding)

    return transpose


def _pooled(backward: Any) -> Transpose:
    def transpose(delta: Tensor, shape: Any, *args: Any, **kwargs: Any) -> Tensor:
        like = delta.new_empty(1).expand(shape)
        if backward in (aten.avg_pool2d_backward, aten.avg_pool3d_backward):
            defaults: list[Any] = [None, [], 0, False, True, None]
            args = (*args, *defaults[len(args) :])
            args = (args[0], args[1] or args[0], *args[2:])
        return backward(delta, like, *args, **kwargs)

    return transpose


def _into_slice(
    delta: Tensor, shape: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Tensor:
    length = shape[dim]
    start = 0 if start is None else start
    end = length if end is None else min(end, length)
    return aten.slice_backward(delta, shape, dim, start, end, step)


def _cropped(delta: Tensor, shape: Any, padding: list[int], value: Any = 0) -> Tensor:
    return aten.constant_pad_nd(delta, [-n for n in padding])


def _squeezed(delta: Tensor, shape: Any, *_: Any) -> Tensor:
    return delta.reshape(shape)


class ConstantPad(LinearMap):
    """Padding with a number: affine, so the tangent is padded with 0."""

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        return aten.constant_pad_nd(tangents[0], node.kept[3][0])


class Split(Rule):
    """One tensor cut into several along an axis."""

    name = "linear"
    in_place_safe = True

    def passes(self, position: int) -> bool:
        return True

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        position = 1 if self.removes_axis else 2
        axis = args[position] if len(args) > position else 0
        return axis % args[0].dim() != 0

    def __init__(self, removes_axis: bool) -> None:
        self.removes_axis = removes_axis

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        position = 1 if self.removes_axis else 2
        axis = args[position] if len(args) > position else kwargs.get("dim", 0)
        node.kept = (args[1:], kwargs, axis % args[0].dim(), [part.shape for part in result])

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        _, _, axis, shapes = node.kept
        delta = [delta] if isinstance(delta, Tensor) else delta  # a split into one
        like = next(part for part in delta if part is not None)
        filled = [
            like.new_zeros((like.shape[0], *shape[1:]) if axis else shape) if part is None else part
            for part, shape in zip(delta, shapes, strict=True)
        ]
        return [torch.stack(filled, axis) if self.removes_axis else torch.cat(filled, axis)]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        args, kwargs, *_ = node.kept
        return list(node.op(tangents[0], *args, **kwargs))


class Concatenate(Rule):
    """Several tensors laid after each other along an old axis (cat) or a new one (stack)."""

    name = "linear"

    def __init__(self, new_axis: bool) -> None:
        self.new_axis = new_axis

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        axis = args[1] if len(args) > 1 else 0
        rows = {tensor.shape[0] for tensor in args[0]}
        return axis % result.dim() != 0 and rows == {result.shape[0]}

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        axis %= result.dim()
        node.kept = (axis, [part.shape for part in args[0]], [part.dtype for part in args[0]])

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        axis, shapes, dtypes = node.kept
        if self.new_axis:
            parts = delta.unbind(axis)
        else:
            parts = delta.split(
                [shape[axis] if len(shape) > 1 or shape[0] else 0 for shape in shapes], axis
            )
        return [part.to(dtype) for part, dtype in zip(parts, dtypes, strict=True)]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        axis, shapes, _ = node.kept
        like = next(part for part in tangents if part is not None)
        filled = [
            like.new_zeros((like.shape[0], *shape[1:]) if axis else shape) if part is None else part
            for part, shape in zip(tangents, shapes, strict=True)
        ]
        return torch.stack(filled, axis) if self.new_axis else torch.cat(filled, axis)


def _identity(delta: Tensor, shape: Any, *_: Any, **__: Any) -> Tensor:
    return delta


def _collapsed(delta: Tensor, shape: Any, *_: Any, **__: Any) -> Tensor:
    return delta.sum_to_size(shape)


def _transpose_of(delta: Tensor, shape: Any, *axes: int) -> Tensor:
    return delta.transpose(*axes)


def _into_selection(delta: Tensor, shape: Any, dim: int, index: int) -> Tensor:
    return aten.select_backward(delta, shape, dim, index)


class Expand(LinearMap):
    """A broadcast; its sizes name the batch's."""

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        shape, _, _, (sizes, *_), _ = node.kept
        (tangent,) = tangents
        assert tangent is not None
        if tangent.shape != shape:
            sizes = (tangent.shape[0], *sizes[1:])
        return tangent.expand(sizes)


def _expand_rows(samples: int, args: tuple[Any, ...], result: Any) -> bool:
    return args[0].dim() == result.dim() and args[0].shape[0] == result.shape[0]


def _transpose_rows(samples: int, args: tuple[Any, ...], result: Any) -> bool:
    return all(axis % args[0].dim() != 0 for axis in args[1:3])


def _axis_rows(samples: int, args: tuple[Any, ...], result: Any) -> bool:
    """unsqueeze, squeeze: the first axis is still the batch's."""
    return bool(result.dim()) and result.shape[0] == args[0].shape[0] and args[0].shape[0] > 1


RULES: dict[Any, Rule] = {
    aten.view.default: View(),
    aten._unsafe_view.default: View(),
    aten.clone.default: LinearMap(_identity, _same_axis_zero),
    aten.alias.default: LinearMap(_identity, _same_axis_zero),
    aten._to_copy.default: LinearMap(_identity, _same_axis_zero),
    aten.permute.default: LinearMap(_transposed_permutation, _first_axis_stays),
    aten.transpose.int: LinearMap(_transpose_of, _transpose_rows),
    aten.t.default: LinearMap(lambda delta, shape: delta.t()),
    aten.expand.default: Expand(_collapsed, _expand_rows),
    aten.unsqueeze.default: LinearMap(_squeezed, _axis_rows),
    aten.squeeze.default: LinearMap(_squeezed, _axis_rows),
    aten.squeeze.dim: LinearMap(_squeezed, _axis_rows),
    aten.squeeze.dims: LinearMap(_squeezed, _axis_rows),
    aten.slice.Tensor: LinearMap(_into_slice, _not_axis_zero(1)),
    aten.select.int: LinearMap(_into_selection, _not_axis_zero(1)),
    aten.split.Tensor: Split(removes_axis=False),
    aten.split_with_sizes.default: Split(removes_axis=False),
    aten.unbind.int: Split(removes_axis=True),
    aten.cat.default: Concatenate(new_axis=False),
    aten.stack.default: Concatenate(new_axis=True),
    aten.flip.default: LinearMap(lambda delta, shape, dims: delta.flip(dims), _not_axis_zero(1)),
    aten.roll.default: LinearMap(
        lambda delta, shape, shifts, dims=(): delta.roll(
            [-s for s in (shifts if isinstance(shifts, (list, tuple)) else [shifts])], dims
        ),
        _not_axis_zero(2),
    ),
    aten.neg.default: LinearMap(lambda delta, shape: -delta, _same_axis_zero),
    aten.sum.default: LinearMap(_spread),
    aten.sum.dim_IntList: LinearMap(_spread, _reduction_rows),
    aten.mean.default: LinearMap(_spread_mean),
    aten.mean.dim: LinearMap(_spread_mean, _reduction_rows),
    aten.constant_pad_nd.default: ConstantPad(_cropped, _unpadded_batch),
    aten.pixel_shuffle.default: LinearMap(
        lambda delta, shape, factor: aten.pixel_unshuffle(delta, factor), _same_axis_zero
    ),
    aten.pixel_unshuffle.default: LinearMap(
        lambda delta, shape, factor: aten.pixel_shuffle(delta, factor), _same_axis_zero
    ),
}

for _name in ("reflection_pad", "replication_pad"):
    for _rank in (1, 2, 3):
        _op = getattr(aten, f"{_name}{_rank}d")
        _backward = getattr(aten, f"{_name}{_rank}d_backward")
        RULES[_op.default] = LinearMap(_padded(_backward), _same_axis_zero)

for _name in (
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d",
    "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
):  # fmt: skip
    _backward = getattr(aten, f"{_name}_backward")
    RULES[getattr(aten, _name).default] = LinearMap(_upsampled(_backward), _same_axis_zero)

for _name in ("avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"):
    _backward = getattr(aten, f"{_name}_backward")
    _transpose = (
        _pooled(_backward)
        if _name.startswith("avg")
        else (
            lambda backward: (
                lambda delta, shape, *_: backward(delta, delta.new_empty(1).expand(shape))
            )
        )(_backward)
    )
    RULES[getattr(aten, _name).default] = LinearMap(_transpose, _same_axis_zero)
