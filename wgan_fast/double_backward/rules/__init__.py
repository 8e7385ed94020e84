"""One op, one rule: :func:`rule_of` finds it."""

from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.rules import (
    arithmetic,
    composites,
    constants,
    contractions,
    elementwise,
    indexing,
    linear_maps,
    normalisation,
    ordering,
    pooling,
)
from wgan_fast.double_backward.rules.base import Rule
from wgan_fast.double_backward.rules.local_autograd import LocalAutograd, LocalPointwise

_RULES: dict[Any, Rule] = {
    **linear_maps.RULES,
    **elementwise.RULES,
    **arithmetic.RULES,
    **contractions.RULES,
    **indexing.RULES,
    **pooling.RULES,
    **ordering.RULES,
    **normalisation.RULES,
    **composites.RULES,
    **constants.RULES,
    torch.ops.aten.native_batch_norm.default: normalisation.BatchNorm(),
}
_LOCAL_AUTOGRAD = LocalAutograd()
_LOCAL_POINTWISE = LocalPointwise()
# Pointwise, though PyTorch does not say so.
_POINTWISE_TOO = {
    torch.ops.aten.hardswish.default,
    torch.ops.aten._prelu_kernel.default,
    torch.ops.aten.log_sigmoid_forward.default,
}
_DECOMPOSE = composites.Decompose()
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class InPlace(Rule):
    """An op that writes into its arguments; recorded as the op that does not."""

    mutates = True

    def __init__(self, op: Any) -> None:
        schema = op._schema
        self._positions = [
            i for i, a in enumerate(schema.arguments) if a.is_write and not a.kwarg_only
        ]
        self._names = [a.name for a in schema.arguments if a.is_write]
        self.functional = _functional(op)

    def written(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        found = [args[i] for i in self._positions if i < len(args)]
        found += [kwargs[name] for name in self._names if name in kwargs]
        return [tensor for tensor in found if isinstance(tensor, Tensor)]


def _functional(op: Any) -> Any:
    """``relu`` for ``relu_``, in the same overload; None where there is none."""
    namespace, _, name = op._schema.name.partition("::")
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    overload = "int" if name == "transpose_" else op._overloadname
    return getattr(packet, overload, None) if packet is not None else None


def rule_of(op: Any) -> Rule:
    """The rule of an ATen op; one is found or made for every op."""
    rule = _RULES.get(op)
    if rule is None:
        if torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), _COMPOSITE):
            rule = _DECOMPOSE
        elif op._schema.is_mutable:
            rule = InPlace(op)
        else:
            pointwise = torch.Tag.pointwise in op.tags or op in _POINTWISE_TOO
            rule = _LOCAL_POINTWISE if pointwise else _LOCAL_AUTOGRAD
        _RULES[op] = rule
    return rule
