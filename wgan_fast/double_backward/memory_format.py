"""Convolutions run channels_last on a CPU, whatever the layout of the critic's weights.

oneDNN has layouts of its own. A contiguous batch is rearranged on the way into each convolution and
out of it, in every pass; one that is channels_last is not. The numbers are the same but for
rounding, the critic sees other strides: where it would notice, :class:`StridesError` says so, and
it is called again without.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_fast.double_backward import few_channels
from wgan_fast.double_backward.convolutions import way_of

aten = torch.ops.aten

# What oneDNN computes with.
DTYPES = {torch.float32, torch.bfloat16}

# Whose numbers must be one run of memory for each sample. The copies cost more than is gained.
_BY_SAMPLE = {aten.native_layer_norm.default, aten.native_group_norm.default}


# Operators of others may read memory as if it were contiguous.
_KNOWN = {"aten", "wgan_fast"}


class StridesError(RuntimeError):
    """The critic does something that depends on strides."""


def _fast(tensor: Tensor) -> bool:
    """Whether oneDNN convolves tensors like this one."""
    if tensor.device.type != "cpu" or tensor.dtype not in DTYPES:
        return False
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


class ChannelsLast:
    """Rearranges what a critic's ops take; one for each call of it."""

    def __init__(self, transposed: bool = False) -> None:
        self._transposed = transposed
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}
        self._parted: set[int] = set()

    @staticmethod
    def suits(x: Tensor) -> bool:
        """Whether a batch has images of a type that oneDNN takes."""
        return x.dim() == 4 and _fast(x)

    @property
    def used(self) -> bool:
        """Whether the critic has seen other strides than its own."""
        return bool(self._weights)

    def arguments(self, op: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments with which to run the op.

        Raises:
            StridesError: the op depends on strides.
        """
        if op is aten.convolution.default:
            weight, transposed = args[1], args[6]
            if (
                weight.dim() == 4
                and (self._transposed or not transposed)
                and weight.is_contiguous()
                and _fast(weight)
            ):
                return (args[0], self._rearranged(weight), *args[2:])
        elif op is aten.convolution_backward.default and id(args[2]) in self._weights:
            return (*args[:2], self._rearranged(args[2]), *args[3:])
        elif self.used:
            if op is aten.view.default:
                return (self._viewable(args[0], args[1]), *args[1:])
            if op in _BY_SAMPLE and not args[0].is_contiguous():
                raise StridesError(f"{op} would rearrange the batch back and forth")
            if op is aten.as_strided.default or op.namespace not in _KNOWN:
                raise StridesError(f"{op} may depend on strides")
        return args

    def check_written(self, tensor: Tensor) -> None:
        """Refuse to write into memory of which a view was taken that is none.

        Raises:
            StridesError: the view would not see it.
        """
        if tensor.untyped_storage()._cdata in self._parted:
            raise StridesError("a tensor is written of which another view was taken")

    def check_drawn(self, tensors: list[Tensor]) -> None:
        """Refuse to fill rearranged memory with random numbers, which come in memory's order.

        Raises:
            StridesError: a dropout's mask would be another than the critic's own.
        """
        if self.used and not all(tensor.is_contiguous() for tensor in tensors):
            raise StridesError("random numbers are drawn in an order that strides decide")

    def _rearranged(self, weight: Tensor) -> Tensor:
        # Kept with its original, whose number would come again once it is gone.
        found = self._weights.get(id(weight))
        if found is None:
            # Not contiguous(), which leaves a single channel's strides as they are, to be misread.
            other = weight.clone(memory_format=torch.channels_last)
            found = self._weights[id(weight)] = weight, other
        return found[1]

    def _viewable(self, tensor: Tensor, shape: Any) -> Tensor:
        try:
            tensor.view(shape)
        except RuntimeError:
            copy = tensor.contiguous()
            self._parted |= {part.untyped_storage()._cdata for part in (tensor, copy)}
            return copy
        return tensor


def _to_few_channels(args: tuple[Any, ...]) -> bool:
    return bool(args[6]) and few_channels.suits(args[0], args[1], args[3:])


class InChannelsLast(TorchDispatchMode):
    """In here, convolutions run channels_last, autograd's backward of them too.

    What is called may raise :class:`StridesError`; it must then be called again without.
    """

    def __init__(self) -> None:
        super().__init__()
        self._layout = ChannelsLast(transposed=True)

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if op is aten.convolution.default and _to_few_channels(args):
            images, weight, bias, stride, padding, dilation, _, extra, _ = args
            size = [
                (images.shape[axis + 2] - 1) * stride[axis]
                - 2 * padding[axis]
                + dilation[axis] * (weight.shape[axis + 2] - 1)
                + extra[axis]
                + 1
                for axis in (0, 1)
            ]
            result = few_channels.spread(images, weight, size, args[3:])
            return result if bias is None else result.add_(bias.view(1, weight.shape[1], 1, 1))
        if not op._schema.is_mutable:
            args = self._layout.arguments(op, args)
        for argument, given in zip(op._schema.arguments, args, strict=False):
            if argument.is_write and isinstance(given, Tensor):
                self._layout.check_written(given)
        if torch.Tag.nondeterministic_seeded in op.tags:
            self._layout.check_drawn([given for given in args if isinstance(given, Tensor)])
        if op is aten.convolution.default:
            x, weight, bias, *rest = args
            if way := way_of(x.shape, weight, rest):
                return way.convolve(x, weight, bias, rest)
        elif op is aten.convolution_backward.default:
            delta, x, weight, _, *rest, wanted = args
            if way := way_of(x.shape, weight, rest):
                return tuple(way.gradients(delta, x, weight, x.shape, rest, wanted))
        return op(*args, **kwargs)
