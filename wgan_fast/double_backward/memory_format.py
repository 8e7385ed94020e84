"""Convolutions run channels_last on a CPU, whatever the layout of the critic's weights.

oneDNN has layouts of its own. A contiguous batch is rearranged on the way into each convolution and
out of it, in every pass; one that is channels_last is not. The numbers are the same, the critic
sees other strides: where it would notice, :class:`StridesError` says so, and it is called again
without.
"""

from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

# What oneDNN computes with.
DTYPES = {torch.float32, torch.bfloat16}

# Whose numbers must be one run of memory for each sample. The copies cost more than is gained.
_BY_SAMPLE = {aten.native_layer_norm.default, aten.native_group_norm.default}


class StridesError(RuntimeError):
    """The critic does something that depends on strides."""


class ChannelsLast:
    """Rearranges what a critic's ops take; one for each call of it."""

    def __init__(self) -> None:
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}
        self._parted: set[int] = set()

    @staticmethod
    def suits(x: Tensor) -> bool:
        """Whether a batch has images of a type that oneDNN takes."""
        images = x.dim() == 4 and x.device.type == "cpu" and x.dtype in DTYPES
        return (
            images and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
        )

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
            if weight.dim() == 4 and not transposed and weight.is_contiguous():
                return (args[0], self._rearranged(weight), *args[2:])
        elif self.used:
            if op is aten.view.default:
                return (self._viewable(args[0], args[1]), *args[1:])
            if op in _BY_SAMPLE and not args[0].is_contiguous():
                raise StridesError(f"{op} would rearrange the batch back and forth")
            if op is aten.as_strided.default or op.namespace != "aten":
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
