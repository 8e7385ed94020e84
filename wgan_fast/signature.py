"""What a traced function is specialised to: when any of it changes, the trace is of something else.

Not seen are numbers that a critic takes from elsewhere than its modules' attributes, such as a
global: what Python computes while a function is traced is a constant of the trace.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast.double_backward.choice import modules_of
from wgan_fast.double_backward.module_facts import are_same, held_by, parts_of

_PLAIN = frozenset({bool, int, float, str, tuple, type(None)})


class Signature:
    """The facts about modules, arguments and modes; equal ones mean that a trace holds."""

    def __init__(self, owners: Iterable[Any]) -> None:
        self._owners = list(owners)
        roots = [module for owner in self._owners for module in modules_of(owner)]
        self._modules = list({id(m): m for root in roots for m in root.modules()}.values())
        self._parts: list[int] = []
        self._held: list[Any] = []
        self._tensors: list[Tensor] = []
        self._of_objects: tuple[Any, ...] = ()

    def state(self) -> list[Tensor]:
        """Parameters and buffers, each once."""
        found: dict[int, Tensor] = {}
        for module in self._modules:
            for held in (module._parameters, module._buffers):
                found |= {id(tensor): tensor for tensor in held.values() if tensor is not None}
        return list(found.values())

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that take gradients, by the names they have in their modules."""
        roots = [module for owner in self._owners for module in modules_of(owner)]
        return {
            name: parameter
            for root in roots
            for name, parameter in root.named_parameters()
            if parameter.requires_grad
        }

    def now(self, arguments: Iterable[Tensor]) -> tuple[Any, ...]:
        """The facts at this moment."""
        facts: list[Any] = [self._of_modules()]
        for owner in self._owners:
            if not isinstance(owner, nn.Module):  # a closure may have been given other contents
                facts += [id(_content(cell)) for cell in getattr(owner, "__closure__", None) or ()]
        for tensor in self._tensors:  # which a parameter may become in place
            facts += [tensor.requires_grad, tensor.dtype, tensor.device, tensor.shape]
        for tensor in arguments:
            facts += [tensor.shape, tensor.stride(), tensor.dtype, tensor.device]
        facts += [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")]
        facts += [torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda")]
        return tuple(facts)

    def _of_modules(self) -> tuple[Any, ...]:
        """Those of the modules, which are what they were as long as the same objects are there."""
        parts, held = parts_of(self._modules), held_by(self._modules)
        if parts != self._parts or not are_same(held, self._held):
            self._parts, self._held, self._tensors = parts, held, self.state()
            hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in self._modules]
            plain = [value for m in self._modules for value in vars(m).values()]
            self._of_objects = (
                *parts,
                *hooks,
                *(value for value in plain if type(value) in _PLAIN),
                *map(id, self._tensors),
            )
        return self._of_objects


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
