"""Layer, group, instance, batch and RMS norm, by the fused operators; and softmax.

:mod:`wgan_fast.ops.normalisation` has the formulas. A rule says how x is laid out in rows, each of
them a group of numbers that share statistics.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wgan_fast import ops
from wgan_fast.double_backward.rules.base import Rule, Tensors

aten = torch.ops.aten
fused = torch.ops.wgan_fast


class Rows(NamedTuple):
    """How the operators see x: see :mod:`wgan_fast.ops.normalisation`."""

    columns: int
    groups: int
    repeat: int


class Normalisation(Rule):
    """A group lies within a sample: its numbers are one run of memory."""

    name = "normalisation"
    curved = True
    fresh = True

    def seen(self, args: tuple[Any, ...]) -> tuple[Rows, Tensor | None, Tensor | None]:
        """(rows, γ, β) of a call."""
        raise NotImplementedError

    def statistics(self, result: Any) -> tuple[Tensor | None, Tensor]:
        """The forward's m(x), if it takes one, and r, one for each row."""
        return result[1], result[2]

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        x, (rows, gamma, beta) = args[0], self.seen(args)
        computed_in = ops.accumulation_dtype(x.dtype)
        first = 1 if self.crosses_samples(args) else x.shape[0]  # to be cut with the samples
        node.rows = [
            x,
            *(
                None if numbers is None else numbers.reshape(first, -1).to(computed_in)
                for numbers in self.statistics(result)
            ),
        ]
        node.kept = rows, gamma, beta

    def lay_out(self, node: Any, u: Tensor) -> Tensor:
        """A tensor of x's shape, in rows."""
        u = u.reshape(-1, node.kept[0].columns)
        return u.to(ops.accumulation_dtype(u.dtype))

    def put_back(self, node: Any, rows: Tensor, like: Tensor) -> Tensor:
        """Rows, in the shape and the type of x."""
        return rows.view(like.shape).to(like.dtype)

    def _given(self, node: Any) -> tuple[Tensor, Tensor | None, Tensor]:
        x, mean, inverse = node.rows
        mean = None if mean is None else mean.reshape(-1)
        return self.lay_out(node, x), mean, inverse.reshape(-1)

    @staticmethod
    def _gamma(node: Any) -> tuple[Tensor | None, int, int]:
        rows, gamma, _ = node.kept
        if gamma is not None:
            gamma = gamma.to(ops.accumulation_dtype(gamma.dtype)).reshape(-1)
        return gamma, rows.groups, rows.repeat

    @staticmethod
    def _place(node: Any, result: Tensors, wanted: list[bool], *bars: Tensor | None) -> Tensors:
        """Cotangents of γ and β in the places that these have among the op's tensors."""
        present = [p for p in zip(node.kept[1:], bars, strict=True) if p[0] is not None]
        for position, (parameter, bar) in enumerate(present, start=1):
            if wanted[position] and bar is not None:
                result[position] = bar.view(parameter.shape).to(parameter.dtype)
        return result

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        delta = delta[0] if isinstance(delta, list) else delta
        x, given, laid_out = node.rows[0], self._given(node), self.lay_out(node, delta)
        result: Tensors = [None] * len(wanted)
        if wanted[0]:
            bar = fused.normalisation_vjp(laid_out, *given, *self._gamma(node))
            result[0] = self.put_back(node, bar, x)
        if any(wanted[1:]):
            groups, repeat = node.kept[0][1:]
            bars = fused.normalisation_parameters(laid_out, *given, groups, repeat)
            self._place(node, result, wanted, *bars)
        return result

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        laid_out = self.lay_out(node, tangents[0])
        pushed = fused.normalisation_jvp(laid_out, *self._given(node), *self._gamma(node))
        return [self.put_back(node, pushed, node.rows[0])]

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        if tangents[0] is None:
            return None
        delta = delta[0] if isinstance(delta, list) else delta
        bar, gamma_bar = fused.normalisation_second(
            self.lay_out(node, delta),
            self.lay_out(node, tangents[0]),
            *self._given(node),
            *self._gamma(node),
        )
        result: Tensors = [None] * len(wanted)
        if wanted[0]:
            result[0] = self.put_back(node, bar, node.rows[0])
        return self._place(node, result, wanted, gamma_bar, None)


class LayerNorm(Normalisation):
    """native_layer_norm(x, normalized_shape, weight, bias, eps)."""

    def seen(self, args: tuple[Any, ...]) -> tuple[Rows, Tensor | None, Tensor | None]:
        return Rows(math.prod(args[1]), 1, 1), args[2], args[3]

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return len(args[1]) < args[0].dim()


class RMSNorm(Normalisation):
    """_fused_rms_norm(x, normalized_shape, weight, eps)."""

    keeps_rows = LayerNorm.keeps_rows

    def seen(self, args: tuple[Any, ...]) -> tuple[Rows, Tensor | None, Tensor | None]:
        return Rows(math.prod(args[1]), 1, 1), args[2], None

    def statistics(self, result: Any) -> tuple[Tensor | None, Tensor]:
        return None, result[1]


class GroupNorm(Normalisation):
    """native_group_norm(x, weight, bias, N, C, HxW, groups, eps)."""

    def seen(self, args: tuple[Any, ...]) -> tuple[Rows, Tensor | None, Tensor | None]:
        channels, spatial, groups = args[4], args[5], args[6]
        return Rows(channels // groups * spatial, groups, spatial), args[1], args[2]

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return True


class BatchNorm(Normalisation):
    """native_batch_norm in training: a group is a channel over the whole batch."""

    def seen(self, args: tuple[Any, ...]) -> tuple[Rows, Tensor | None, Tensor | None]:
        x = args[0]
        columns = x.numel() // x.shape[1]
        return Rows(columns, x.shape[1], columns), args[1], args[2]

    def lay_out(self, node: Any, u: Tensor) -> Tensor:
        return super().lay_out(node, u.transpose(0, 1).contiguous())

    def put_back(self, node: Any, rows: Tensor, like: Tensor) -> Tensor:
        turned = rows.view(like.shape[1], like.shape[0], *like.shape[2:])
        return turned.transpose(0, 1).to(like.dtype)

    def crosses_samples(self, args: tuple[Any, ...]) -> bool:
        return True

    def state(self, args: tuple[Any, ...]) -> list[Tensor]:
        return [buffer for buffer in args[3:5] if buffer is not None]


class Softmax(Rule):
    """y = softmax(x): the Jacobian y (t − ⟨y, t⟩) is symmetric."""

    name = "softmax"
    curved = True

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return args[1] % args[0].dim() != 0

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        node.rows = [result]
        node.kept = args[1]

    @staticmethod
    def _jacobian(node: Any, u: Tensor) -> Tensor:
        (y,) = node.rows
        return y * (u - (y * u).sum(node.kept, keepdim=True))

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        return [self._jacobian(node, delta)]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        assert tangents[0] is not None
        return self._jacobian(node, tangents[0])

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        (y,), axis, (t,) = node.rows, node.kept, tangents
        assert t is not None
        along_t = (y * t).sum(axis, keepdim=True)
        along_delta = (y * delta).sum(axis, keepdim=True)
        return [self._jacobian(node, delta * t - delta * along_t - t * along_delta)]


class LogSoftmax(Rule):
    """y = log softmax(x), p = eʸ: t_y = t − ⟨p, t⟩."""

    name = "softmax"
    curved = True
    keeps_rows = Softmax.keeps_rows
    record = Softmax.record

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        return [delta - node.rows[0].exp() * delta.sum(node.kept, keepdim=True)]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        (t,) = tangents
        return t - (node.rows[0].exp() * t).sum(node.kept, keepdim=True)

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        # ⟨Δ, t⟩ − (Σ Δ) ⟨p, t⟩
        axis, (t,) = node.kept, tangents
        assert t is not None
        p = node.rows[0].exp()
        return [-delta.sum(axis, keepdim=True) * p * (t - (p * t).sum(axis, keepdim=True))]


RULES: dict[Any, Rule] = {
    aten.native_layer_norm.default: LayerNorm(),
    aten.native_group_norm.default: GroupNorm(),
    aten._fused_rms_norm.default: RMSNorm(),
    aten._softmax.default: Softmax(),
    aten._safe_softmax.default: Softmax(),
    aten._log_softmax.default: LogSoftmax(),
}
