"""The way that Python takes through a critic, and whether it still takes it, without computing.

A critic's Python runs in every call, and may choose otherwise each time. :func:`noted` writes down
every op of one call; :meth:`Way.still_taken` runs the critic again and compares op by op, handing
out stand-ins in place of results. Where nothing differs, whatever was traced of that call holds for
this one.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_fast.double_backward.choice import every_module, plain_facts
from wgan_fast.double_backward.errors import CrossSample, Unsupported
from wgan_fast.double_backward.independence import State
from wgan_fast.double_backward.record import layout_for, record_by, seen_by
from wgan_fast.double_backward.recorder import Recorder, tensors_in
from wgan_fast.double_backward.recording import Recording
from wgan_fast.double_backward.rules import rule_of

Critic = Callable[[Tensor], Any]

_PLAIN = frozenset({
    bool, int, float, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format,
})  # fmt: skip
# What Python or a shape learns from numbers in tensors, it may learn otherwise the next time.
_READING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
# Ops that do so unsaid.
_READERS = {
    torch.ops.aten.tensor_split.tensor_indices_or_sections,
    torch.ops.aten._pack_padded_sequence.default,
}

# Where a view op's result is tied to its base, for once and all: stand-ins serve many times.
_VIEWS = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)


class _Step(NamedTuple):
    op: Any
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    graded: bool
    """Whether gradients were enabled."""
    result: Any


class Way:
    """The ops of one call of a critic, on stand-ins of its tensors.

    Args:
        steps: the ops, in order.
        x: what the critic was called with.
        scores: what it returned.
    """

    def __init__(self, steps: list[_Step], x: Tensor, scores: Tensor) -> None:
        stands = _StandIns(steps, x)
        self.largest = stands.largest
        """Bytes of the largest tensor in the critic."""
        self.ops = [step.op for step in steps]
        """The operators, in the order they run."""
        self._x, self._scores = stands.of(x), stands.of(scores)
        self._steps = [
            step._replace(
                arguments=stands.of(step.arguments),
                named={name: stands.of(given) for name, given in step.named.items()},
                result=stands.of(step.result),
            )
            for step in steps
        ]
        self.outside = list(stands.outside.values())
        """Tensors from elsewhere: parameters, buffers, constants."""
        self._facts = self._facts_now()
        self._stands = list(stands.made.values())
        del stands
        self._holders = self._holders_now()

    def still_taken(self, critic: Critic) -> bool:
        """Whether a call now would run the same ops with the same numbers on the same parameters.

        The critic is called; nothing is computed, written or drawn.
        """
        if self._facts_now() != self._facts:
            return False
        watch = _Watch(self._steps)
        modes = [(module, module.training) for module in every_module(critic)]
        try:
            with seen_by(watch), torch._C._ExcludeDispatchKeyGuard(_VIEWS):
                taken = critic(self._x) is self._scores
        except (_OtherWay, Exception):  # an error of the critic's own will come again
            for module, training in modes:  # which it may have been about to put back
                module.training = training
            return False
        # It may keep now what it did not keep before.
        return taken and watch.position == len(self._steps) and self._holders_now() == self._holders

    def _facts_now(self) -> list[Any]:
        """What must not change in parameters, buffers and constants besides their numbers."""
        return [(t.requires_grad, t.dtype, t.shape, t.stride()) for t in self.outside]

    def _holders_now(self) -> list[int]:
        return [sys.getrefcount(tensor) for tensor in self._stands]


class _StandIns:
    """For every tensor that a critic makes, one of its kind and shape.

    They share a memory that is given back: whoever reads it past the dispatcher, as NumPy does,
    gets an error.
    """

    def __init__(self, steps: list[_Step], x: Tensor) -> None:
        tensors = {id(t): t for step in steps for t in tensors_in(_listed(step.result))}
        tensors[id(x)] = x
        self.largest = max(_reach(tensor) for tensor in tensors.values())
        memory = torch.UntypedStorage(self.largest, device=x.device)
        self.made = {
            key: torch.empty(0, dtype=tensor.dtype, device=x.device).set_(
                memory, 0, tensor.shape, tensor.stride()
            )
            for key, tensor in tensors.items()
        }
        memory.resize_(0)
        said = "a stand-in for an activation has no numbers"
        torch._C._set_storage_data_ptr_access_error_msg(memory._cdata, said)
        torch._C._storage_throw_on_immutable_data_ptr(memory._cdata)
        self.outside: dict[int, Tensor] = {}

    def of(self, given: Any) -> Any:
        """The same with stand-ins in the place of tensors."""
        if isinstance(given, Tensor):
            stand = self.made.get(id(given))
            return self.outside.setdefault(id(given), given) if stand is None else stand
        if isinstance(given, (list, tuple)):
            return type(given)([self.of(item) for item in given])
        return given


def _reach(tensor: Tensor) -> int:
    """The bytes of memory from a tensor's first number to its last."""
    reach = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (reach + 1) * tensor.element_size() if tensor.numel() else 0


def noted(critic: Critic, x: Tensor, rows_apart: bool) -> tuple[Way, int] | None:
    """The way that Python takes through the critic on ``x``, and its recording's digest.

    None where a call cannot be told by its ops alone: it reads numbers, or changes its own state,
    which is then as it was before.
    """
    noting = _Noting(rule_of, x.shape[0] if rows_apart else 0, layout_for(critic, x))
    facts, state = plain_facts(critic), State(critic)
    called_with: list[Tensor] = []

    def called(given: Tensor) -> Any:
        called_with.append(given)
        return critic(given)

    try:
        recording = record_by(called, x, noting)
    except (CrossSample, Unsupported):
        state.put_back()
        return None
    changed = recording.stateful or state.replaced() or plain_facts(critic) != facts
    if noting.refused or changed:
        noting.roll_back()
        state.put_back()
        return None
    found = Way(noting.steps, called_with[0], recording.scores), recording.digest
    made = [ref(t) for step in noting.steps for t in tensors_in(_listed(step.result))]
    made += map(ref, called_with)
    noting.steps.clear()
    called_with.clear()
    del recording
    noting.recording = Recording()
    # What a critic keeps for later must be no stand-in, so it has to be called for real.
    return None if any(tensor() is not None for tensor in made) else found


class _Noting(Recorder):
    """A recorder that notes every op of the critic's own."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps: list[_Step] = []
        self.refused = False
        self._within = False  # an op that is recorded as several

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.refused |= op in _READERS or not _READING.isdisjoint(op.tags)
        if self._within:
            return super().__torch_dispatch__(op, types, args, kwargs)
        self._within = True
        try:
            result = super().__torch_dispatch__(op, types, args, kwargs)
        finally:
            self._within = False
        kwargs = kwargs or {}
        given = [*args, *kwargs.values()]
        self.refused |= not _is_plain(given)
        self.refused |= not all(isinstance(one, Tensor) for one in _listed(result))
        self.steps.append(_Step(op, args, kwargs, torch.is_grad_enabled(), result))
        return result


class _OtherWay(BaseException):
    """Python took another way. No Exception, which a critic might catch."""


class _Watch(TorchDispatchMode):
    """Compares every op with the noted one, and hands out its stand-in."""

    def __init__(self, steps: list[_Step]) -> None:
        super().__init__()
        self._steps = steps
        self.position = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # its wrapper costs microseconds for every op

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self.position == len(self._steps):
            raise _OtherWay
        noted_op, arguments, named, graded, result = self._steps[self.position]
        self.position += 1
        same = op is noted_op and torch.is_grad_enabled() is graded and _same(args, arguments)
        if same and (kwargs or named):
            kwargs = kwargs or {}
            same = kwargs.keys() == named.keys() and _same(
                list(kwargs.values()), [named[name] for name in kwargs]
            )
        if not same:
            raise _OtherWay
        return result


def _same(given: Any, noted: Any) -> bool:
    """Whether arguments are equal, tensors the same objects."""
    if len(given) != len(noted):
        return False
    for one, other in zip(given, noted, strict=True):
        if one is other:
            continue
        kind = type(one)
        if kind is not type(other):
            return False
        if kind is list or kind is tuple:
            if not _same(one, other):
                return False
        elif kind not in _PLAIN or one != other:
            return False
    return True


def _is_plain(given: Iterable[Any]) -> bool:
    """Whether arguments can be compared."""
    return all(
        _is_plain(one)
        if isinstance(one, (list, tuple))
        else isinstance(one, Tensor) or type(one) in _PLAIN
        for one in given
    )


def _listed(result: Any) -> Any:
    return result if isinstance(result, (list, tuple)) else (result,)
