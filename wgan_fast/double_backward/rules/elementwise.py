"""Elementwise ops of one tensor: activations, with their first and second derivatives.

``f'`` is computed from what is kept: the result for a piecewise-linear activation, whose input can
then be overwritten, or the input.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.rules.base import Rule, Tensors, elementwise_rows

aten = torch.ops.aten


class PiecewiseLinear(Rule):
    """y = slope(region) x: the tangent and the cotangent take the same factor, curvature is 0."""

    name = "piecewise linear"
    fresh = True

    def __init__(
        self,
        apply: Callable[..., Tensor],
        from_result: Any,
        over: Callable[..., Tensor] | None = None,
    ) -> None:
        self.apply = apply
        self.over = over
        """``apply`` that writes its result into its first argument."""
        """``apply(tangent or cotangent, kept tensor, *others)`` multiplies by the slope."""
        self.from_result = from_result
        """Whether the result tells the slope, given the other arguments."""

    in_place_safe = True

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return elementwise_rows(args, result)

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        node.rows = [result if self.from_result else args[0]]
        node.kept = args[1:]

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        return [self.apply(delta, node.rows[0], *node.kept)]

    def overwrite(self, node: Any, delta: Tensor) -> bool:
        if self.over is None:
            return False
        self.over(delta, node.rows[0], *node.kept)
        return True

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        return self.apply(tangents[0], node.rows[0], *node.kept)

    def push_over(self, node: Any, tangent: Tensor) -> bool:
        return self.overwrite(node, tangent)  # the same product with the slope


class KeepsInput(PiecewiseLinear):
    """A piecewise-linear op whose slope only the input tells; its in-place version needs a copy."""

    in_place_safe = False


def _leaky_relu(u: Tensor, kept: Tensor, slope: float = 0.01) -> Tensor:
    return aten.leaky_relu_backward(u, kept, slope, True)


def _leaky_relu_over(u: Tensor, kept: Tensor, slope: float = 0.01) -> Tensor:
    return aten.leaky_relu_backward.grad_input(u, kept, slope, True, grad_input=u)


def _relu_over(u: Tensor, kept: Tensor) -> Tensor:
    return aten.threshold_backward.grad_input(u, kept, 0, grad_input=u)


class LeakyReLU(PiecewiseLinear):
    """The result tells the slope only where the slope is not negative."""

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        super().record(node, args, kwargs, result)
        if len(args) > 1 and args[1] < 0:
            from wgan_fast.double_backward.errors import Unsupported

            raise Unsupported("leaky_relu with a negative slope")


def _between(u: Tensor, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    inside = torch.ones_like(x, dtype=torch.bool)
    if low is not None:
        inside &= x >= low
    if high is not None:
        inside &= x <= high
    return u * inside


class Smooth(Rule):
    """y = f(x): t_y = f'(x) t, and the curvature term f''(x) Δ t."""

    name = "smooth elementwise"
    curved = True
    fresh = True

    def __init__(
        self, times: Callable[..., Tensor], second: Callable[..., Tensor], of_result: bool = False
    ) -> None:
        self.times = times
        """``times(tangent or cotangent, kept tensor, *others)`` multiplies by f', out of place."""
        self.second_derivative = second
        self.of_result = of_result

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return elementwise_rows(args, result)

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        node.rows = [result if self.of_result else args[0]]
        node.kept = (args[1:], kwargs)

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        args, kwargs = node.kept
        return [self.times(delta, node.rows[0], *args, **kwargs)]

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        args, kwargs = node.kept
        return self.times(tangents[0], node.rows[0], *args, **kwargs)

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        args, kwargs = node.kept
        product = delta * tangents[0]
        return [product.mul_(self.second_derivative(node.rows[0], *args, **kwargs))]


def _by(first: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``times`` from f' itself, where PyTorch has no kernel for the product."""
    return lambda u, kept, *args, **kwargs: u * first(kept, *args, **kwargs)


def _silu_second(x: Tensor) -> Tensor:
    s = x.sigmoid()
    return s * (1 - s) * (2 + x * (1 - 2 * s))


def _normal(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


_TANH_SCALE, _TANH_CUBE = math.sqrt(2 / math.pi), 0.044715


def _gelu_second(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        y = torch.tanh(_TANH_SCALE * (x + _TANH_CUBE * x**3))
        u1 = _TANH_SCALE * (1 + 3 * _TANH_CUBE * x * x)
        u2 = 6 * _TANH_SCALE * _TANH_CUBE * x
        return (1 - y * y) * (u1 + 0.5 * x * (u2 - 2 * y * u1 * u1))
    return (2 - x * x) * _normal(x)


def _elu(
    u: Tensor, x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> Tensor:
    return aten.elu_backward(u, alpha, scale, input_scale, False, x)


def _elu_second(
    x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> Tensor:
    below = alpha * scale * input_scale**2 * torch.exp(input_scale * x.clamp(max=0))
    return torch.where(x > 0, torch.zeros_like(x), below)


def _softplus(u: Tensor, x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    return aten.softplus_backward(u, x, beta, threshold)


def _softplus_second(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    s = torch.sigmoid(beta * x)
    return torch.where(x * beta > threshold, torch.zeros_like(x), beta * s * (1 - s))


def _power_first(x: Tensor, p: float) -> Tensor:
    return torch.zeros_like(x) if p == 0 else p * x.pow(p - 1)


def _power_second(x: Tensor, p: float) -> Tensor:
    return torch.zeros_like(x) if p in (0, 1) else p * (p - 1) * x.pow(p - 2)


RULES: dict[Any, Rule] = {
    aten.relu.default: PiecewiseLinear(
        lambda u, y: aten.threshold_backward(u, y, 0), True, _relu_over
    ),
    aten.leaky_relu.default: LeakyReLU(_leaky_relu, True, _leaky_relu_over),
    aten.threshold.default: KeepsInput(lambda u, x, low, value: u * (x > low), False),
    aten.hardtanh.default: KeepsInput(
        lambda u, x, low=-1.0, high=1.0: aten.hardtanh_backward(u, x, low, high), False
    ),
    aten.clamp.default: KeepsInput(_between, False),
    aten.clamp_min.default: KeepsInput(lambda u, x, low: u * (x >= low), False),
    aten.clamp_max.default: KeepsInput(lambda u, x, high: u * (x <= high), False),
    aten.abs.default: KeepsInput(lambda u, x: u * x.sgn(), False),
    aten.hardshrink.default: KeepsInput(
        lambda u, x, bound=0.5: u * ((x > bound) | (x < -bound)), False
    ),
    aten.softshrink.default: KeepsInput(
        lambda u, x, bound=0.5: u * ((x > bound) | (x < -bound)), False
    ),
    aten.hardsigmoid.default: KeepsInput(lambda u, x: u * ((x > -3) & (x < 3)) / 6, False),
    aten.tanh.default: Smooth(aten.tanh_backward, lambda y: -2 * y * (1 - y * y), of_result=True),
    aten.sigmoid.default: Smooth(
        aten.sigmoid_backward, lambda y: y * (1 - y) * (1 - 2 * y), of_result=True
    ),
    aten.exp.default: Smooth(torch.mul, lambda y: y, of_result=True),
    aten.silu.default: Smooth(aten.silu_backward, _silu_second),
    aten.gelu.default: Smooth(aten.gelu_backward, _gelu_second),
    aten.elu.default: Smooth(_elu, _elu_second),
    aten.softplus.default: Smooth(_softplus, _softplus_second),
    aten.log.default: Smooth(torch.div, lambda x: -1 / (x * x)),
    aten.sin.default: Smooth(_by(torch.cos), lambda x: -torch.sin(x)),
    aten.cos.default: Smooth(_by(lambda x: -torch.sin(x)), lambda x: -torch.cos(x)),
    aten.sqrt.default: Smooth(
        _by(lambda y: 0.5 / y), lambda y: -0.25 / (y * y * y), of_result=True
    ),
    aten.rsqrt.default: Smooth(_by(lambda y: -0.5 * y**3), lambda y: 0.75 * y**5, of_result=True),
    aten.reciprocal.default: Smooth(_by(lambda y: -y * y), lambda y: 2 * y**3, of_result=True),
    aten.pow.Tensor_Scalar: Smooth(_by(_power_first), _power_second),
}
