"""Normalisations, by one set of formulas: layer, group, instance, batch and RMS norm; and softmax.

Over the groups that share statistics, with m(·) the mean over a group, r the inverse deviation,
x̂ = r (x − m(x)) and P(u) = u − m(u) − x̂ m(x̂ u):

    y = γ x̂ + β,   t_y = γ r P(t),   x̄ = r P(γ Δ),

and with d = γ Δ the second-order terms of ⟨d, r P(t)⟩ are

    x̄ = −r² [ m(x̂ t) P(d) + m(x̂ d) P(t) + x̂ (m(d t) − m(d) m(t) − m(x̂ d) m(x̂ t)) ],
    γ̄ = Σ Δ r P(t).

RMS norm is the same with m(x), m(u), m(d) and m(t) left out.
"""

from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.rules.base import Rule, Tensors

aten = torch.ops.aten


class Normalisation(Rule):
    """The formulas; subclasses say what a group is."""

    name = "normalisation"
    curved = True
    centred = True

    def passes(self, position: int) -> bool:
        return position == 0

    def geometry(self, args: tuple[Any, ...]) -> tuple[Any, list[int], Any, Any]:
        """(shape to see x in, without the batch's size; axes of a group in it; γ's shape; γ)."""
        raise NotImplementedError

    def statistics(self, args: tuple[Any, ...], result: Any) -> tuple[Tensor | None, Tensor]:
        """The forward's m(x) and r, in any shape; with the groups in order."""
        return result[1], result[2]

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        shape, axes, gamma_shape, gamma = self.geometry(args)
        seen = args[0].reshape(args[0].shape[0], *shape)
        kept_axes = [1 if axis in axes else size for axis, size in enumerate(seen.shape)]
        mean, inverse = self.statistics(args, result)
        inverse = inverse.reshape(kept_axes)
        normal = (seen if mean is None else seen - mean.reshape(kept_axes)) * inverse
        node.rows = [normal.to(args[0].dtype), inverse if 0 not in axes else None]
        shapes = (shape, args[0].shape[1:], args[0].dtype)
        node.kept = (shapes, axes, gamma_shape, gamma, None if 0 not in axes else inverse)

    def _seen(self, node: Any, u: Tensor) -> Tensor:
        return u.reshape(u.shape[0], *node.kept[0][0])

    def _back(self, node: Any, u: Tensor) -> Tensor:
        _, shape, dtype = node.kept[0]
        return u.reshape(u.shape[0], *shape).to(dtype)

    def _project(self, node: Any, u: Tensor, along: Tensor) -> Tensor:
        """P(u), given m(x̂ u)."""
        result = u - node.rows[0] * along
        return result - u.mean(node.kept[1], keepdim=True) if self.centred else result

    def _inverse(self, node: Any) -> Tensor:
        return node.kept[4] if node.rows[1] is None else node.rows[1]

    def _scaled(self, node: Any, u: Tensor) -> Tensor:
        """γ u, in the shape that groups are seen in."""
        _, _, gamma_shape, gamma, _ = node.kept
        if gamma is None:
            return self._seen(node, u)
        return self._seen(
            node, u.reshape(u.shape[0], *gamma_shape[1]) * gamma.reshape(gamma_shape[0])
        )

    def _to_parameter(self, node: Any, product: Tensor) -> Tensor:
        """Sum a product of x's shape over all that shares one element of γ."""
        _, _, gamma_shape, gamma, _ = node.kept
        product = product.reshape(product.shape[0], *gamma_shape[1])
        return product.sum_to_size(gamma_shape[0]).reshape(gamma.shape if gamma is not None else -1)

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        delta = delta[0] if isinstance(delta, list) else delta
        axes, normal = node.kept[1], node.rows[0]
        result: Tensors = [None] * len(wanted)
        if wanted[0]:
            d = self._scaled(node, delta)
            along = (d * normal).mean(axes, keepdim=True)
            result[0] = self._back(node, self._inverse(node) * self._project(node, d, along))
        for position, factor in ((1, normal), (2, None)):
            if position < len(wanted) and wanted[position]:
                product = delta if factor is None else delta * factor.reshape(delta.shape)
                result[position] = self._to_parameter(node, product)
        return result

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        tangent, axes, normal = tangents[0], node.kept[1], node.rows[0]
        total = None
        if tangent is not None:
            seen = self._seen(node, tangent)
            along = (seen * normal).mean(axes, keepdim=True)
            inner = self._inverse(node) * self._project(node, seen, along)
            total = self._back(node, self._scaled(node, self._back(node, inner)))
        return [total]

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        tangent = tangents[0]
        if tangent is None:
            return None
        delta = delta[0] if isinstance(delta, list) else delta
        axes, normal = node.kept[1], node.rows[0]
        inverse = self._inverse(node)
        d, t = self._scaled(node, delta), self._seen(node, tangent)
        d_along = (d * normal).mean(axes, keepdim=True)
        t_along = (t * normal).mean(axes, keepdim=True)
        projected = self._project(node, t, t_along)
        result: Tensors = [None] * len(wanted)
        if wanted[0]:
            product = (d * t).mean(axes, keepdim=True) - d_along * t_along
            if self.centred:
                product = product - d.mean(axes, keepdim=True) * t.mean(axes, keepdim=True)
            bar = t_along * self._project(node, d, d_along) + d_along * projected + normal * product
            result[0] = self._back(node, -inverse * inverse * bar)
        if len(wanted) > 1 and wanted[1]:
            result[1] = self._to_parameter(node, delta * self._back(node, inverse * projected))
        return result


class LayerNorm(Normalisation):
    """native_layer_norm(x, normalized_shape, weight, bias, eps)."""

    def geometry(self, args: tuple[Any, ...]) -> tuple[Any, list[int], Any, Any]:
        x, normalized = args[0], args[1]
        lead = x.shape[1 : x.dim() - len(normalized)]
        size = torch.Size(normalized).numel()
        shape = (*lead, size)
        gamma = args[2]
        gamma_shape = ((*[1] * (len(shape)), size), shape)
        return shape, [len(shape)], gamma_shape, gamma

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return len(args[1]) < args[0].dim()


class GroupNorm(Normalisation):
    """native_group_norm(x, weight, bias, N, C, HxW, groups, eps)."""

    def geometry(self, args: tuple[Any, ...]) -> tuple[Any, list[int], Any, Any]:
        channels, spatial, groups = args[4], args[5], args[6]
        shape = (groups, channels // groups * spatial)
        return shape, [2], ((1, channels, 1), (channels, spatial)), args[1]

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return True


class BatchNorm(Normalisation):
    """native_batch_norm in training: a group is a channel over the whole batch."""

    def geometry(self, args: tuple[Any, ...]) -> tuple[Any, list[int], Any, Any]:
        x = args[0]
        spatial = torch.Size(x.shape[2:]).numel()
        shape = (x.shape[1], spatial)
        return shape, [0, 2], ((1, x.shape[1], 1), shape), args[1]

    def crosses_samples(self, args: tuple[Any, ...]) -> bool:
        return True

    def state(self, args: tuple[Any, ...]) -> list[Tensor]:
        return [buffer for buffer in args[3:5] if buffer is not None]


class RMSNorm(Normalisation):
    """_fused_rms_norm(x, normalized_shape, weight, eps)."""

    centred = False

    def statistics(self, args: tuple[Any, ...], result: Any) -> tuple[Tensor | None, Tensor]:
        return None, result[1]

    geometry = LayerNorm.geometry
    keeps_rows = LayerNorm.keeps_rows


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
