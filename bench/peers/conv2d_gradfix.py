"""The idea of StyleGAN's ``conv2d_gradfix``: a convolution with derivatives of its own.

Karras et al. 2020, arXiv 1912.04958 and its successors' ``torch_utils/ops/conv2d_gradfix.py``. A
convolution's input gradient is a transposed convolution and the other way round, so one Function
serves every order of input gradient, and each weight gradient is the library's own kernel, where
PyTorch's ``convolution_double_backward`` takes a convolution with a map as its kernel. Written
anew, for any device.

What it has in common with the original's ``no_weight_gradients``: the penalty's inner
``autograd.grad`` asks for the input's gradient alone, and a Function cannot see that. Here the
weights are left out of every backward that makes a graph, which is right in a penalty's loop and
in no other place.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

_Sizes = tuple[int, ...]


class _Settings(NamedTuple):
    """The arguments of ``aten::convolution`` after the bias, in its order."""

    stride: _Sizes
    padding: _Sizes
    dilation: _Sizes
    transposed: bool
    output_padding: _Sizes
    groups: int

    def adjoint(self, x: Tensor, weight: Tensor, y: Tensor) -> "_Settings":
        """Those of the convolution that takes the gradient of ``y`` to that of ``x``."""
        if self.transposed:
            return self._replace(transposed=False, output_padding=(0, 0))
        # What the strides have skipped at the end must come back.
        output_padding = tuple(
            size - ((out - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
            for size, out, stride, padding, dilation, kernel in zip(
                x.shape[2:],
                y.shape[2:],
                self.stride,
                self.padding,
                self.dilation,
                weight.shape[2:],
                strict=True,
            )
        )
        return self._replace(transposed=True, output_padding=output_padding)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, settings):
        ctx.save_for_backward(x, weight)
        ctx.settings, ctx.has_bias = settings, bias is not None
        return torch.convolution(x, weight, bias, *settings)

    @staticmethod
    def backward(ctx, cotangent):
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            adjoint = ctx.settings.adjoint(x, weight, cotangent)
            of_x = _Convolution.apply(cotangent, weight, None, adjoint)
        if ctx.needs_input_grad[1] and not torch.is_grad_enabled():
            _, of_weight, of_bias = torch.ops.aten.convolution_backward(
                cotangent,
                x,
                weight,
                [cotangent.shape[1]] if ctx.has_bias else None,
                *ctx.settings,
                [False, True, ctx.has_bias],
            )
        return of_x, of_weight, of_bias, None


class Conv2dGradfix(nn.Conv2d):
    """``nn.Conv2d`` with numbers for its padding, and zeros there."""

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Conv2d``'s."""
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            raise NotImplementedError("conv2d_gradfix: padding other than by numbers, with zeros")
        settings = _Settings(
            self.stride, self.padding, self.dilation, False, self.output_padding, self.groups
        )
        return _Convolution.apply(x, self.weight, self.bias, settings)


def gradfix_(critic: nn.Module) -> nn.Module:
    """Turns every ``nn.Conv2d`` of ``critic`` into a :class:`Conv2dGradfix`, in place."""
    for module in critic.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = Conv2dGradfix
    return critic
