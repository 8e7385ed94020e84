"""What a traced function is specialised to: when any of it changes, the trace is of something else.

Not seen are numbers that a critic takes from elsewhere than its modules' attributes, such as a
global: what Python computes while a function is traced is a constant of the trace.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast.double_backward.choice import modules_of
from wgan_fast.ops.registration import EXTENSION_MISSING

_PLAIN = frozenset({bool, int, float, str, tuple, type(None)})

# What an ordered dictionary has besides its contents is an order, and that of hooks does not count.
_PARTS = {
    "_parameters": (dict,),
    "_buffers": (dict,),
    "_modules": (dict,),
    "_forward_hooks": (dict, OrderedDict),
    "_forward_pre_hooks": (dict, OrderedDict),
}


class Signature:
    """The facts about modules, arguments and modes; equal ones mean that a trace holds."""

    def __init__(self, owners: Iterable[Any]) -> None:
        self._owners = list(owners)
        roots = [module for owner in self._owners for module in modules_of(owner)]
        self._modules = list({id(m): m for root in roots for m in root.modules()}.values())

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
        facts: list[Any] = []
        for owner in self._owners:
            if not isinstance(owner, nn.Module):  # a closure may have been given other contents
                facts += [id(_content(cell)) for cell in getattr(owner, "__closure__", None) or ()]
        for module in self._modules:
            facts += [value for value in vars(module).values() if type(value) in _PLAIN]
            facts += [id(part) for part in module._modules.values()]
            facts += [len(module._forward_hooks), len(module._forward_pre_hooks)]
            for held in (*module._parameters.values(), *module._buffers.values()):
                if held is not None:
                    facts += [id(held), held.requires_grad, held.dtype, held.device]
        for tensor in arguments:
            facts += [tensor.shape, tensor.stride(), tensor.dtype, tensor.device]
        facts += [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")]
        facts += [torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda")]
        return tuple(facts)

    def snapshot(self, arguments: Iterable[Tensor]) -> Any:
        """``holds(*arguments)``: whether the facts and the number of threads are still these.

        False may mean no more than that they have to be asked for. None where they always have to:
        the extension is missing, an owner is a function, whose closure is among the facts, or a
        module keeps its parts in something else than dictionaries, as scripted ones do.
        """
        if EXTENSION_MISSING or not all(isinstance(owner, nn.Module) for owner in self._owners):
            return None
        from wgan_fast._C import Snapshot

        parts = [(getattr(m, part), kind) for m in self._modules for part, kind in _PARTS.items()]
        if not all(type(held) in kind for held, kind in parts):
            return None
        return Snapshot(self._modules, [held for held, _ in parts], *arguments)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
