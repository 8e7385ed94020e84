"""A critic's first layer at the interpolates: a mix of what it gives at the real and fake samples.

A product with a weight is affine, and x̂ = α x + (1 − α) x̃ has coefficients whose sum is one: so
y(x̂) = α y(x) + (1 − α) y(x̃), bias included. That is one pass over y in the place of a third of
the product, the same numbers up to rounding.
"""

from typing import Any

import torch
from torch import Tensor

from wgan_fast import ops
from wgan_fast.double_backward.recording import Node
from wgan_fast.double_backward.rules.contractions import BatchedMatrix, Linear, MatrixMatrix
from wgan_fast.double_backward.rules.linear_maps import View

# Multiplications for each number of y, and in all, that take longer than the mix, at 2 threads.
_DEEP, _LARGE = 256, 1 << 22


class FirstLayer:
    """Runs the ops of a recording on [x, x̃, x̂], the critic's first product on x and x̃ alone."""

    def __init__(self, batch: int, alpha: Tensor) -> None:
        """``batch`` is the value that [x, x̃, x̂] is; ``alpha`` has α for each row of x̂."""
        self._alpha = alpha
        self._batch: set[int | None] = {batch}
        """The values that are the batch, in the critic's shape or in another."""

    def run(
        self, op: Any, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any], values: list[int]
    ) -> Any:
        """The op's result."""
        if not self._is_first(rule, args, values):
            return rule.run(op, args, kwargs)
        at = rule.positions[0]
        samples = args[at][: 2 * len(self._alpha)]
        real, fake = rule.run(op, (*args[:at], samples, *args[at + 1 :]), kwargs).chunk(2)
        return ops.merged_batch(real, fake, self._alpha)

    def follow(self, node: Node, result: Tensor) -> None:
        """A node gave this result."""
        reshaped = isinstance(node.rule, View) and node.inputs[0] in self._batch
        if reshaped and len(result) == 3 * len(self._alpha):
            self._batch.add(node.outputs[0])

    def _is_first(self, rule: Any, args: tuple[Any, ...], values: list[int]) -> bool:
        if not isinstance(rule, (Linear, MatrixMatrix)) or isinstance(rule, BatchedMatrix):
            return False
        at_x, at_weight, at_bias = rule.positions
        x, weight = args[at_x], args[at_weight]
        bias = args[at_bias] if at_bias is not None and at_bias < len(args) else None
        return (
            values[at_x] in self._batch
            and x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.float64)
            and (bias is None or bias.dim() == 1)
            and x.shape[-1] >= _DEEP
            and x.numel() // 3 * (weight.numel() // x.shape[-1]) >= _LARGE
        )
