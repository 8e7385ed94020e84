"""Any op without a rule of its own: exact, through autograd's double backward of that one op.

The op is run again on detached arguments whenever a derivative is asked for, so this costs more
than a rule; it serves every op that autograd can differentiate twice.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from wgan_fast.double_backward.errors import NoDoubleBackward
from wgan_fast.double_backward.rules.base import Rule, Tensors, elementwise_rows, is_rows

# What PyTorch says of a derivative that has none itself.
ONCE_ONLY = ("not implemented", "differentiat", "no autograd formula was registered")


class LocalAutograd(Rule):
    """y = op(...), differentiated by autograd."""

    name = "local autograd"
    curved = True
    pointwise = False

    def passes(self, position: int) -> bool:
        return True

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        flat, tree = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        # The results of a pointwise op have one shape; of any other, the batch is never merged.
        first = result if isinstance(result, Tensor) else result[0]
        cut = [not self.pointwise or is_rows(tensor, first) for tensor in tensors]
        node.rows = [tensor if rows else None for tensor, rows in zip(tensors, cut, strict=True)]
        node.kept = (flat, tree)

    def _run(self, node: Any) -> tuple[list[Tensor], list[Tensor | None]]:
        """The op on fresh leaves: (differentiable arguments, differentiable results)."""
        flat, tree = node.kept
        leaves: list[Tensor] = []
        fresh, position = [], 0
        for leaf in flat:
            if isinstance(leaf, Tensor):
                value, kept = node.inputs[position], node.rows[position]
                position += 1
                leaf = (leaf if kept is None else kept).detach()
                if value is not None:
                    leaf = leaf.requires_grad_()
                    leaves.append(leaf)
            fresh.append(leaf)
        args, kwargs = tree_unflatten(fresh, tree)
        result = node.op(*args, **kwargs)
        results = (
            [result] if isinstance(result, Tensor) else [r for r in result if isinstance(r, Tensor)]
        )
        return leaves, [
            tensor if value is not None and tensor.requires_grad else None
            for tensor, value in zip(results, node.outputs, strict=True)
        ]

    @staticmethod
    def _pairs(results: list[Tensor | None], deltas: Any) -> tuple[list[Tensor], list[Tensor]]:
        deltas = [deltas] if isinstance(deltas, Tensor) else deltas
        pairs = [
            (result, delta.to(result.dtype))
            for result, delta in zip(results, deltas, strict=True)
            if result is not None and delta is not None
        ]
        return [result for result, _ in pairs], [delta for _, delta in pairs]

    @staticmethod
    def _placed(node: Any, gradients: Any) -> Tensors:
        """Gradients of the differentiable arguments, in the places of all tensor arguments."""
        waiting = iter(gradients)
        return [None if value is None else next(waiting) for value in node.inputs]

    def _guarded(self, node: Any, work: Any) -> Any:
        try:
            with torch.enable_grad():
                return work()
        except RuntimeError as error:
            if any(words in str(error) for words in ONCE_ONLY):
                raise NoDoubleBackward(
                    f"{node.op} has no double backward ({str(error).splitlines()[0]}); "
                    'backend="first_order" needs none'
                ) from error
            raise

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        def work() -> Any:
            leaves, results = self._run(node)
            outputs, deltas = self._pairs(results, delta)
            return torch.autograd.grad(outputs, leaves, deltas, allow_unused=True)

        return self._placed(node, self._guarded(node, work))

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        def work() -> Any:
            leaves, results = self._run(node)
            # Jᵀ u is linear in u; its own derivative in u, contracted with t, is J t.
            probes = [
                None if r is None else torch.zeros_like(r, requires_grad=True) for r in results
            ]
            outputs, given = self._pairs(results, probes)
            pulled = torch.autograd.grad(
                outputs, leaves, given, create_graph=True, allow_unused=True
            )
            placed = self._placed(node, pulled)
            pairs = [
                (gradient, tangent)
                for gradient, tangent in zip(placed, tangents, strict=True)
                if gradient is not None and tangent is not None and gradient.requires_grad
            ]
            if not pairs:
                return [None for _ in results]
            pushed = iter(
                torch.autograd.grad(
                    [gradient for gradient, _ in pairs],
                    given,
                    [tangent for _, tangent in pairs],
                    allow_unused=True,
                )
            )
            return [None if probe is None else next(pushed) for probe in probes]

        return self._guarded(node, work)

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        def work() -> Any:
            leaves, results = self._run(node)
            outputs, deltas = self._pairs(results, delta)
            if not outputs:
                return None
            pulled = torch.autograd.grad(
                outputs, leaves, deltas, create_graph=True, allow_unused=True
            )
            placed = self._placed(node, pulled)
            pairs = [
                (gradient, tangent)
                for gradient, tangent in zip(placed, tangents, strict=True)
                if gradient is not None and tangent is not None and gradient.requires_grad
            ]
            if not pairs:
                return None
            return torch.autograd.grad(
                [gradient for gradient, _ in pairs],
                leaves,
                [tangent for _, tangent in pairs],
                allow_unused=True,
            )

        bars = self._guarded(node, work)
        return None if bars is None else self._placed(node, bars)


class LocalPointwise(LocalAutograd):
    """The same for a pointwise op: samples stay apart."""

    pointwise = True

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return elementwise_rows(args, result if isinstance(result, Tensor) else result[0])
