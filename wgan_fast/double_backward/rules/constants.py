"""Ops that no derivative passes: comparisons, roundings, factories, random numbers, ``detach``."""

from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.rules.base import Rule, elementwise_rows

aten = torch.ops.aten


class Constant(Rule):
    """The result is a constant to a derivative, though made from the arguments' numbers."""

    name = "constant"
    stops_gradients = True

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        return elementwise_rows(tuple(tensors), result)


class Factory(Constant):
    """The result has the arguments' shape and does not depend on their numbers."""

    forgets_values = True

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return True


class Unknown(Constant):
    """Integer results, numbers read into Python: what mixes samples cannot be told."""

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        return False


_ELEMENTWISE = (
    "detach", "sign", "sgn", "floor", "ceil", "round", "trunc", "eq", "ne", "lt", "le", "gt", "ge",
    "isnan", "isinf", "logical_not", "logical_and", "logical_or", "logical_xor", "bitwise_not",
    "bitwise_and", "bitwise_or", "signbit",
)  # fmt: skip
_FACTORIES = (
    "empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_empty",
    "new_zeros", "new_ones", "new_full", "randint_like", "new_empty_strided",
)  # fmt: skip
_UNKNOWN = (
    "_local_scalar_dense",
    "argmax",
    "argmin",
    "argsort",
    "nonzero",
    "is_nonzero",
    "any",
    "all",
)


def _overloads(name: str) -> list[Any]:
    packet = getattr(aten, name, None)
    return [] if packet is None else [getattr(packet, overload) for overload in packet.overloads()]


RULES: dict[Any, Rule] = {
    op: rule
    for names, rule in ((_ELEMENTWISE, Constant()), (_FACTORIES, Factory()), (_UNKNOWN, Unknown()))
    for name in names
    for op in _overloads(name)
    if not op._schema.is_mutable
}
