"""Which route a critic takes: explicit where it can, merged where it may, and what was learnt."""

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn


def unwrapped(critic: Any) -> Any:
    """The module that ``torch.compile`` wrapped, which it cannot differentiate twice."""
    return getattr(critic, "_orig_mod", critic)


def refusal(critic: Any) -> str | None:
    """Why the explicit engine must not take a critic, as far as can be seen without calling it."""
    if isinstance(critic, nn.Module):
        for name, module in critic.named_modules():
            if module._backward_hooks or module._backward_pre_hooks:
                where = name or type(module).__name__
                return f"module {where!r} has backward hooks, which need autograd's graph"
    return None


class Memory:
    """What earlier calls found out of a critic, so that it is not tried again in every step.

    Forgetting is harmless, and so is remembering: both routes give the same numbers.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[nn.Module, dict[bool, Any]] = WeakKeyDictionary()

    def get(self, critic: Any) -> Any:
        """What is known of a critic in its present mode, or None."""
        if not isinstance(critic, nn.Module):
            return None
        return self._known.get(critic, {}).get(critic.training)

    def set(self, critic: Any, what: Any) -> None:
        """Remember ``what`` of a critic in its present mode."""
        if isinstance(critic, nn.Module):
            self._known.setdefault(critic, {})[critic.training] = what


unsupported = Memory()
unmerged = Memory()
