"""Calls of torch.nn's own modules, which Python's way is compared with as a whole.

What such a module runs is decided by its attributes, its parameters, and the modes that it is
called in. Where none of these is another than before, its ops need not be looked at one by one,
which takes longer than a small critic computes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn

from wgan_fast.double_backward.choice import every_module
from wgan_fast.double_backward.module_facts import are_same, held_by, parts_of

# All of torch.nn that reads nothing but its attributes, and is called with one tensor. Not the
# lazy ones, which turn into others, nor those that choose among several ways by themselves.
_KNOWN = frozenset({
    nn.Sequential, nn.Identity, nn.Flatten, nn.Unflatten,
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Softmax, nn.LogSoftmax,
    nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.GLU,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d,
    nn.PixelShuffle, nn.PixelUnshuffle, nn.Upsample, nn.UpsamplingNearest2d,
})  # fmt: skip
# What a module has of its own where somebody puts another call in the place of its class's.
_OWN_CALLS = ("forward", "_compiled_call_impl", "_call_impl")

Call = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]


class ModuleCall(NamedTuple):
    """One call of a module, among the ops of a critic's."""

    module: "ref[nn.Module]"
    x: Tensor
    modes: tuple[Any, ...]
    start: int
    """How many ops came before it."""
    end: int
    """How many had come when it returned."""
    result: Tensor


class Outermost:
    """Notes the calls of known modules that are not within another one's.

    Args:
        ops: what grows by one with every op of the critic's.
    """

    def __init__(self, ops: list[Any]) -> None:
        self.calls: list[ModuleCall] = []
        self._ops = ops
        self._within = False

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call itself."""
        if self._within:
            return module._call_impl(*args, **kwargs)
        start, under = len(self._ops), modes()
        self._within = True
        try:
            result = module._call_impl(*args, **kwargs)
        finally:
            self._within = False
        end = len(self._ops)
        one = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        if one and isinstance(result, Tensor) and end > start:
            self.calls.append(ModuleCall(ref(module), args[0], under, start, end, result))
        return result


class KnownCalls:
    """Calls that have been noted, and whether they would run the same ops now."""

    def __init__(self, calls: Sequence[ModuleCall]) -> None:
        self._calls = {(id(call.module()), call.start): call for call in calls}
        modules = {id(module): module for call in calls if (module := call.module()) is not None}
        self._modules = list(map(ref, modules.values()))
        parts = [part for module in modules.values() for part in module.modules()]
        # Weakly: one of them may be what all of this is forgotten with.
        self._parts = list(map(ref, parts))
        self._within = parts_of(parts)
        self._facts = held_by(parts)
        self._lists = [(fact, tuple(fact)) for fact in self._facts if type(fact) is list]

    @contextmanager
    def skipped(self, watch: Any) -> Iterator[None]:
        """In here such a call gives its result at once, and moves ``watch.position`` on."""
        if not self._calls or not self._hold():
            yield
            return

        def at_once(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            call = self._calls.get((id(module), watch.position))
            same = call is not None and len(args) == 1 and not kwargs and args[0] is call.x
            if call is None or not same or call.modes != modes():
                return module._call_impl(*args, **kwargs)
            watch.position = call.end
            return call.result

        with called_by([module for found in self._modules if (module := found())], at_once):
            yield

    def _hold(self) -> bool:
        parts = [part for found in self._parts if (part := found()) is not None]
        return (
            len(parts) == len(self._parts)
            and parts_of(parts) == self._within
            and are_same(held_by(parts), self._facts)
            and all(tuple(one) == before for one, before in self._lists)
        )


def known_modules(critic: Any) -> list[nn.Module]:
    """Those of a critic's modules that are torch.nn's own, with all within them."""
    known: dict[int, bool] = {}

    def is_known(module: nn.Module) -> bool:
        if id(module) not in known:
            known[id(module)] = False  # for one that holds itself
            own = vars(module)
            known[id(module)] = (
                type(module) in _KNOWN
                and not any(name in own for name in _OWN_CALLS)
                and all(part is None or is_known(part) for part in module._modules.values())
            )
        return known[id(module)]

    return [module for module in every_module(critic) if is_known(module)]


@contextmanager
def called_by(modules: Iterable[nn.Module], call: Call) -> Iterator[None]:
    """In here, and in this thread, ``call(module, args, kwargs)`` is what calls of modules do."""
    changed = list({id(module): module for module in modules}.values())
    thread = get_ident()
    for module in changed:
        # Where ``module.compile()`` puts its own, which copies and pickles leave out.
        module.__dict__["_compiled_call_impl"] = _instead(module, call, thread)
    try:
        yield
    finally:
        for module in changed:
            module.__dict__.pop("_compiled_call_impl", None)


def _instead(module: nn.Module, call: Call, thread: int) -> Callable[..., Any]:
    def instead(*args: Any, **kwargs: Any) -> Any:
        if get_ident() != thread:
            return module._call_impl(*args, **kwargs)
        return call(module, args, kwargs)

    return instead


def modes() -> tuple[Any, ...]:
    """What decides, besides a module, which ops it runs."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cpu"),
        torch.get_autocast_dtype("cuda"),
        torch.are_deterministic_algorithms_enabled(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
    )
