"""Composite ops: taken apart by PyTorch's own definition, or by a better one for the engine."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.rules.base import Rule

aten = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class Decompose(Rule):
    """PyTorch's own C++ definition of the op in terms of others."""

    composite = True

    def compose(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return op._op_dk(_COMPOSITE, *args, **kwargs)


class Redefine(Rule):
    """Another definition, in Python, of ops that have rules."""

    composite = True

    def __init__(self, definition: Callable[..., Any]) -> None:
        self.definition = definition

    def compose(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.definition(*args, **kwargs)


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        return aten.native_batch_norm(
            x, weight, bias, running_mean, running_var, True, momentum, eps
        )[0]
    # With fixed statistics the op is affine: x · scale + shift per channel.
    scale = aten.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = running_mean * scale
    shift = -shift if bias is None else bias - shift
    channels = (1, -1, *[1] * (x.dim() - 2))
    return x * scale.view(channels) + shift.view(channels)


def _instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    if running_mean is not None or not use_input_stats:
        return aten.instance_norm.default._op_dk(
            _COMPOSITE, x, weight, bias, running_mean, running_var, use_input_stats, momentum, eps,
            cudnn_enabled,
        )  # fmt: skip
    # One group per channel; PyTorch's definition lays the batch into the channels instead.
    samples, channels = x.shape[:2]
    spatial = math.prod(x.shape[2:])
    in_some_order = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    x = x if in_some_order else x.contiguous()
    return aten.native_group_norm(x, weight, bias, samples, channels, spatial, channels, eps)[0]


def _pad_circular(x: Tensor, padding: list[int]) -> Tensor:
    for axis, (before, after) in enumerate(zip(padding[::2], padding[1::2], strict=True)):
        dim = x.dim() - 1 - axis
        size = x.shape[dim]
        core = x.narrow(dim, max(-before, 0), size - max(-before, 0) - max(-after, 0))
        parts = [core]
        if before > 0:
            parts.insert(0, x.narrow(dim, size - before, before))
        if after > 0:
            parts.append(x.narrow(dim, 0, after))
        x = torch.cat(parts, dim)
    return x


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    # The fused variants have no double backward; the math variant is made of ops that have rules.
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # which it would add as 0 and 1
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(
            attn_mask.logical_not(), -math.inf
        )
    return aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )[0]


def _recurrent(op: Any) -> Callable[..., Any]:
    def definition(*args: Any, **kwargs: Any) -> Any:
        # The fused cells of oneDNN and cuDNN have no double backward; the native ones do.
        before = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        torch._C._set_cudnn_enabled(False)
        try:
            return op._op_dk(_COMPOSITE, *args, **kwargs)
        finally:
            torch._C._set_mkldnn_enabled(before[0])
            torch._C._set_cudnn_enabled(before[1])

    return definition


def _unsafe_split(x: Tensor, *args: Any) -> list[Tensor]:
    # The parts may be written in place (recurrent cells do), so each gets memory of its own.
    return [part.clone() for part in aten.split.Tensor(x, *args)]


def _rrelu(
    x: Tensor,
    noise: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> Tensor:
    if not training:
        return aten.leaky_relu(x, (lower + upper) / 2)
    _, slope = aten.rrelu_with_noise_functional(
        x.detach(), noise, lower, upper, True, generator=generator
    )
    return x * slope


RULES: dict[Any, Rule] = {
    aten.unsafe_split.Tensor: Redefine(_unsafe_split),
    aten.rrelu_with_noise.default: Redefine(_rrelu),
    aten.batch_norm.default: Redefine(_batch_norm),
    aten.instance_norm.default: Redefine(_instance_norm),
    aten._pad_circular.default: Redefine(_pad_circular),
    aten.scaled_dot_product_attention.default: Redefine(_attention),
    **{
        op: Redefine(_recurrent(op))
        for op in (
            aten.lstm.input, aten.lstm.data, aten.gru.input, aten.gru.data,
            aten.rnn_tanh.input, aten.rnn_tanh.data, aten.rnn_relu.input, aten.rnn_relu.data,
        )
    },
}  # fmt: skip
