"""Whether modules are still what they were, told by the identity of all that they hold.

This takes a microsecond for a module, where comparing what they hold would take as long as a small
critic computes.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn


def held_by(modules: Iterable[nn.Module]) -> list[Any]:
    """Types, attributes, parameters, buffers and forward hooks of modules, in a fixed order."""
    held: list[Any] = []
    for module in modules:
        kind = type(module)
        held += (kind, kind.forward, *vars(module).values())
        held += module._parameters.values()
        held += module._buffers.values()
        held += module._forward_hooks.values()
        held += module._forward_pre_hooks.values()
    return held


def parts_of(modules: Iterable[nn.Module]) -> list[int]:
    """The modules within modules, by their ids, which no others have as long as these live."""
    return [id(part) for module in modules for part in module._modules.values()]


def are_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two lists hold the same objects."""
    return len(one) == len(other) and all(map(operator.is_, one, other))
