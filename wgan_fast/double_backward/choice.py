"""Which route a critic takes: explicit where it can, merged where it may, and what was learnt."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules import module as hooks

from wgan_fast.critic_calls import CriticCall

# Where a number that a critic is called with is another in every step, so is what is known of it.
_REMEMBERED = 256
_PLAIN = frozenset({bool, int, float, str, type(None)})


def unwrapped(critic: Any) -> Any:
    """The module that ``torch.compile`` wrapped, which it cannot differentiate twice."""
    if isinstance(critic, nn.Module) and "_orig_mod" not in critic._modules:
        return critic  # it takes its time to say that it has no such attribute
    return getattr(critic, "_orig_mod", critic)


def refusal(critic: Any) -> str | None:
    """Why the explicit engine must not take a critic, as far as can be seen without calling it."""
    if isinstance(critic, CriticCall) and any(c.requires_grad for c in critic.conditions):
        return "gradients flow into cond, which needs autograd"
    for module in every_module(critic):
        if module._backward_hooks or module._backward_pre_hooks:
            return f"a {type(module).__name__} has backward hooks, which need autograd's graph"
    return None


def has_forward_hooks(critic: Any) -> bool:
    """Whether others than the critic look at what its modules take and give."""
    if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        return True
    return any(one._forward_hooks or one._forward_pre_hooks for one in every_module(critic))


def every_module(critic: Any) -> list[nn.Module]:
    """The modules behind a critic and all within them."""
    found = modules_of(critic)
    for module in found:  # which grows; modules() takes longer than the ops of a small critic
        found += [part for part in module._modules.values() if part is not None]
    return found


def modules_of(critic: Any) -> list[nn.Module]:
    """The modules behind a critic: itself, or those that a function or a method holds."""
    if isinstance(critic, nn.Module):
        return [critic]
    if isinstance(critic, (CriticCall, functools.partial)):
        return [module for one in _held(critic) for module in modules_of(one)]
    return [one for one in _held(critic) if isinstance(one, nn.Module)]


def plain_facts(critic: Any) -> list[Any]:
    """The flags and numbers by which Python may choose its way through a critic."""
    facts = _plain(_held(critic))
    if isinstance(critic, (CriticCall, functools.partial)):
        facts += [fact for one in _held(critic) if callable(one) for fact in plain_facts(one)]
        return facts
    for root in modules_of(critic):
        for module in root.modules():
            facts += _plain(vars(module).values())
    return facts


def _plain(values: Iterable[Any]) -> list[Any]:
    """Those that are plain, and those that a list or a dict among them holds."""
    facts = []
    for value in values:
        if type(value) in _PLAIN:
            facts.append((type(value), value))
        elif isinstance(value, (dict, list, tuple)):
            within = value.values() if isinstance(value, dict) else value
            facts += [(type(one), one) for one in within if type(one) in _PLAIN]
    return facts


def _held(critic: Any) -> list[Any]:
    """What a call of a critic that is no module takes along."""
    if isinstance(critic, CriticCall):
        return [critic.critic, *critic.fixed.values()]
    if isinstance(critic, functools.partial):
        return [critic.func, *critic.args, *critic.keywords.values()]
    owner = getattr(critic, "__self__", None)
    if isinstance(owner, nn.Module):
        return [owner]
    code = getattr(critic, "__code__", None)
    if code is None:
        return []
    cells = [cell for cell in critic.__closure__ or () if _filled(cell)]
    held = [cell.cell_contents for cell in cells] + list(critic.__defaults__ or ())
    return held + [critic.__globals__.get(name) for name in code.co_names]


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - reading it is the question
    except ValueError:
        return False
    return True


def _identity(critic: Any) -> tuple[Any, tuple[Any, ...]]:
    """What stays of a critic from step to step, even of a function that is made anew in each."""
    if isinstance(critic, nn.Module):
        return critic, (critic.training,)
    if isinstance(critic, CriticCall):
        anchor, rest = _identity(critic.critic)
        return anchor, (*rest, critic.key)
    modules = modules_of(critic)
    if not modules:
        return critic, ()
    code = getattr(getattr(critic, "func", critic), "__code__", None)
    return modules[0], (code, *((id(module), module.training) for module in modules))


class Memory:
    """What earlier calls found out of a critic, so that it is not tried again in every step."""

    _every: ClassVar[list["Memory"]] = []

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Callable[..., Any], dict[Any, Any]] = WeakKeyDictionary()
        self._every.append(self)

    def get(self, critic: Any, *about: Any) -> Any:
        """What is known of a critic in its present mode, or None."""
        anchor, rest = _identity(critic)
        try:
            return self._known.get(anchor, {}).get((rest, about))
        except TypeError:  # cannot be referred to weakly, or hashed
            return None

    def set(self, critic: Any, what: Any, *about: Any) -> None:
        """Remember ``what`` of a critic in its present mode."""
        anchor, rest = _identity(critic)
        try:
            known = self._known.setdefault(anchor, {})
            if len(known) >= _REMEMBERED:
                known.clear()
            known[rest, about] = what
        except TypeError:
            return

    @classmethod
    @contextmanager
    def blank(cls) -> Iterator[None]:
        """In here nothing is known of any critic, and what is found out is forgotten after."""
        before = [(memory, memory._known) for memory in cls._every]
        for memory, _ in before:
            memory._known = WeakKeyDictionary()
        try:
            yield
        finally:
            for memory, known in before:
                memory._known = known


unsupported = Memory()
unmerged = Memory()
proven = Memory()
"""Merged batches that gave the same scores as their parts, and what is kept of them."""
