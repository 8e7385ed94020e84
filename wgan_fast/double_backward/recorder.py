"""The mode under which a critic runs: every ATen op goes through here, and into a recording.

The critic runs with gradients enabled, so that its own ``no_grad`` blocks are seen, but below
autograd's dispatch keys, so that no graph is built.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_fast.double_backward.conditions import keeps_rows
from wgan_fast.double_backward.errors import CrossSample, Unsupported
from wgan_fast.double_backward.first_layer import FirstLayer
from wgan_fast.double_backward.marks import (
    CONDITION,
    CONSTANT,
    MIXED,
    TAINTED,
    both,
    mark_of,
    set_mark,
)
from wgan_fast.double_backward.memory_format import ChannelsLast
from wgan_fast.double_backward.recording import Node, Recording

aten = torch.ops.aten
_PLAIN = frozenset({int, float, bool, str})


def tensors_in(arguments: Iterable[Any]) -> Iterator[Tensor]:
    """The tensor arguments of an op in order, lists of tensors laid flat."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, (list, tuple)):
            yield from (item for item in argument if isinstance(item, Tensor))


def _numbers(arguments: Iterable[Any]) -> list[Any]:
    """The numbers and words among an op's arguments, those in lists of numbers too."""
    found: list[Any] = []
    for argument in arguments:
        kind = type(argument)
        if kind in _PLAIN:
            found.append(argument)
        elif kind in (list, tuple) and argument and type(argument[0]) in _PLAIN:
            found += [len(argument), *argument]
    return found


def _listed(result: Any) -> Any:
    return result if isinstance(result, (list, tuple)) else (result,)


class Recorder(TorchDispatchMode):
    """Writes a :class:`Recording`; ``samples`` > 0 demands that rows stay apart, or raises.

    With ``alpha``, the batch is real samples, fake samples and their mixes by α.
    """

    def __init__(
        self,
        rule_of: Callable[[Any], Any],
        samples: int = 0,
        layout: ChannelsLast | None = None,
        alpha: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.rule_of = rule_of
        self.samples = samples
        self.recording = Recording()
        self._first = None if alpha is None else FirstLayer(self.recording.input, alpha)
        self._parameters: dict[int, int] = {}
        self._mutated: dict[int, tuple[int, StorageWeakRef]] = {}
        self._written: dict[int, tuple[int, StorageWeakRef]] = {}
        """Memory of constants into which was written what comes of samples or conditions."""
        self._whole: set[int] = set()
        """The values that are a parameter's own shape: a narrow copy of it, or a normalised one."""
        self._unversioned: Node | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Its wrapper costs microseconds for every op; a critic is never compiled while recorded.
        return False

    def mark(self, tensor: Tensor, value: int) -> None:
        """Write on a tensor which value of this recording it is."""
        set_mark(tensor, self.recording.active, value)

    def value_of(self, tensor: Tensor) -> int:
        """The value that ``tensor`` is; a new one for a parameter that is met first."""
        active, mark = mark_of(tensor)
        if active is not self.recording.active:
            mark = CONSTANT
        if mark < 0 and self._written:
            # A view of it may have been written into.
            written, _ = self._written.get(tensor.untyped_storage()._cdata, (mark, None))
            mark = both(mark, written)
        if mark < 0 and tensor.requires_grad:
            if not torch.is_grad_enabled():
                return CONSTANT
            value = self._parameters.get(id(tensor))
            if value is None:
                value = self._parameters[id(tensor)] = self.recording.new_value(active=False)
                self.recording.leaves.append((value, tensor))
                self._whole.add(value)
            return value
        return mark

    def roll_back(self) -> None:
        """Give every tensor that the critic changed the numbers that it had before the call."""
        for tensor, before in reversed(self.recording.changed):
            tensor.copy_(before)

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = self.rule_of(op)
        if rule.composite:
            with self:
                return rule.compose(op, args, kwargs)

        self._set_versions()
        given = list(tensors_in((*args, *kwargs.values()) if kwargs else args))
        values = [self.value_of(tensor) for tensor in given]
        if self._mutated:
            self._check_stale(given, values)
        active_of = self.recording.active
        active = differentiable = False
        for value in values:
            if value >= 0:
                differentiable = True
                active = active or active_of[value]
        if not torch.is_grad_enabled():
            if active:
                raise Unsupported(
                    f"{op} runs on the critic's input with gradients turned off: in a custom "
                    "autograd.Function or a no_grad block, whose derivative cannot be recorded"
                )
            values = [min(value, CONSTANT) for value in values]
            differentiable = False
        # What is made of parameters and conditions has a row per sample, as what is made of the
        # input has.
        active = active or (differentiable and (CONDITION in values or MIXED in values))
        tainted = active or TAINTED in values
        otherwise = TAINTED if tainted else self._of_conditions(values)

        apart = not (tainted and self.samples)
        if self.samples:
            self._note_way(op, args, kwargs)
        if not apart:
            if rule.crosses_samples(args):
                raise CrossSample(f"{op} mixes the samples of a batch")
            if MIXED in values:
                raise CrossSample(f"{op} takes what was made of the conditions of several samples")
            if self.recording.parameter_nodes:
                self._refuse_parameters_with_rows(given, values)
        random = torch.Tag.nondeterministic_seeded in op.tags
        if random:
            self.recording.random = True
            if self.layout is not None:
                self.layout.check_drawn(given)
            if rule.mutates:
                self._refuse_shared_noise(op, values, args[0])
        if rule.mutates:
            return self._in_place(op, rule, args, kwargs, given, values, differentiable, otherwise)
        for buffer in rule.state(args):
            self._outside(buffer)
        if self.layout is not None:
            args = self.layout.arguments(op, args)
        if self._first is None:
            result = rule.run(op, args, kwargs)
        else:
            result = self._first.run(op, rule, args, kwargs, values)
        if random:
            self._refuse_shared_noise(op, values, result)
        if not (apart or rule.keeps_rows(self.samples, args, result)):
            raise CrossSample(f"{op} may mix the samples of a batch")
        if otherwise == CONDITION and not keeps_rows(op, rule, self.samples, args, kwargs, result):
            otherwise = MIXED
        if otherwise == MIXED:
            self._note_read(op, result)
        if not differentiable and otherwise == CONSTANT and self._is_older(op, given):
            return result
        self._write(op, rule, args, kwargs, values, result, differentiable, active, otherwise)
        return result

    def _is_older(self, op: Any, given: list[Tensor]) -> bool:
        """Whether a result is memory from before the call: to write into it is to change that."""
        if not op.is_view or op is aten.lift_fresh.default:  # of a number of Python's
            return False
        return mark_of(given[0])[0] is not self.recording.active

    def _write(
        self,
        op: Any,
        rule: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        values: list[int],
        result: Any,
        differentiable: bool,
        active: bool,
        otherwise: int,
    ) -> None:
        """Mark the results by a new node's values, or ``otherwise`` if no derivative passes."""
        results = [result] if isinstance(result, Tensor) else list(tensors_in(_listed(result)))
        if not differentiable or rule.stops_gradients:
            for tensor in results:
                self.mark(tensor, CONSTANT if rule.forgets_values else otherwise)
            return
        outputs: list[int | None] = []
        for position, tensor in enumerate(results):
            through = rule.passes(position) and tensor.is_floating_point()
            value = self.recording.new_value(active) if through else None
            if active and tensor.is_complex():
                raise Unsupported(f"{op} gives complex numbers")
            outputs.append(value)
            self.recording.half |= tensor.dtype == torch.float16
            self.mark(tensor, otherwise if value is None else value)
        if all(value is None for value in outputs):
            return  # integers, say: no derivative passes
        node = Node(op, rule, [value if value >= 0 else None for value in values], outputs)
        node.look_at(self.recording.active)
        rule.record(node, args, kwargs, result)
        if self._first is not None:
            self._first.follow(node, results[0])
        if not active and self.samples:
            self._note_whole(node, args, results[0])
        self._unversioned = node
        (self.recording.nodes if active else self.recording.parameter_nodes).append(node)

    @staticmethod
    def _of_conditions(values: list[int]) -> int:
        """The mark of what is made of these, where none depends on the input."""
        return MIXED if MIXED in values else CONDITION if CONDITION in values else CONSTANT

    def _note_way(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add an op, and the numbers that Python gave it, to the digest."""
        numbers = _numbers(args)
        if kwargs:
            numbers += _numbers(kwargs.values())
        if op is aten.lift_fresh.default and args[0].numel() == 1 and args[0].is_cpu:
            numbers.append(args[0].item())  # a tensor that Python made of a number
        self.recording.digest = hash((self.recording.digest, op, *numbers))

    def _note_read(self, op: Any, result: Any) -> None:
        """Add to the digest what Python sees of several samples' conditions: a number, a size."""
        if op is aten._local_scalar_dense.default:
            self.recording.reads = True
            if isinstance(result, float):
                raise CrossSample("Python reads a number of the conditions of several samples")
            seen = [result]
        else:
            seen = [tuple(tensor.shape) for tensor in tensors_in(_listed(result))]
        self.recording.digest = hash((self.recording.digest, *seen))

    def _set_versions(self) -> None:
        """Note the versions of what the last node keeps: an op in place counts on return."""
        if (node := self._unversioned) is not None:
            node.versions = [0 if kept is None else kept._version for kept in node.rows]
            self._unversioned = None

    def finish(self, scores: Any) -> Recording:
        """The recording, once it is known that nothing it keeps was written over."""
        self._set_versions()
        recording = self.recording
        recording.scores = scores
        recording.score = self.value_of(scores) if isinstance(scores, Tensor) else CONSTANT
        for node in recording.nodes:
            for kept, version in zip(node.rows, node.versions, strict=True):
                if kept is not None and kept._version != version:
                    raise Unsupported(f"what {node.op} keeps was written in place afterwards")
        return recording

    # -- ops that write into their arguments ---------------------------------------------------

    def _in_place(
        self,
        op: Any,
        rule: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: list[Tensor],
        values: list[int],
        differentiable: bool,
        otherwise: int,
    ) -> Any:
        tainted = otherwise == TAINTED
        written = rule.written(args, kwargs)
        for tensor in written:
            if self.layout is not None:
                self.layout.check_written(tensor)
            if mark_of(tensor)[0] is not self.recording.active:
                self._outside(tensor)
        if not differentiable:
            result = op(*args, **kwargs)
            if otherwise == CONDITION:
                functional = rule.functional or op
                of_values = self.rule_of(functional)
                if not keeps_rows(functional, of_values, self.samples, args, kwargs, result):
                    otherwise = MIXED
            for tensor in written:
                self.mark(tensor, otherwise)
                if otherwise != CONSTANT:
                    memory = StorageWeakRef(tensor.untyped_storage())
                    before, _ = self._written.get(memory.cdata, (CONSTANT, None))
                    self._written[memory.cdata] = both(before, otherwise), memory
            return result
        functional = rule.functional
        if functional is None or len(written) != 1 or written[0] is not args[0]:
            raise Unsupported(f"{op} writes into its arguments in a way that cannot be recorded")
        target = args[0]
        rule = self.rule_of(functional)
        if tainted and self.samples and not rule.keeps_rows(self.samples, args, target):
            raise CrossSample(f"{op} may mix the samples of a batch")
        active = self._of_conditions(values) < CONSTANT or any(
            value >= 0 and self.recording.active[value] for value in values
        )
        if torch.Tag.inplace_view in op.tags:  # another shape for the same memory
            result = functional(*args, **kwargs)
            self._write(functional, rule, args, kwargs, values, result, True, active, otherwise)
            op(*args, **kwargs)
            self.mark(target, self.value_of(result))
            return target
        if rule.in_place_safe:
            op(*args, **kwargs)
        else:
            args = (target.clone(), *args[1:])
            target.copy_(functional(*args, **kwargs))
        self._write(functional, rule, args, kwargs, values, target, True, active, otherwise)
        # From now on, any other view of this memory holds numbers that are not its value's.
        # The weak reference keeps the memory's address from being handed out again.
        memory = StorageWeakRef(target.untyped_storage())
        self._mutated[memory.cdata] = self.value_of(target), memory
        return target

    def _refuse_parameters_with_rows(self, given: list[Tensor], values: list[int]) -> None:
        """A parameter's value laid out per sample, as a cell's first state is, cannot be cut."""
        for tensor, value in zip(given, values, strict=True):
            parametric = value >= 0 and not self.recording.active[value]
            computed = parametric and value not in self._whole and tensor.dim() > 0
            if computed and tensor.shape[0] % self.samples == 0:
                raise CrossSample("a value that depends on parameters alone has a row per sample")

    def _note_whole(self, node: Node, args: tuple[Any, ...], result: Tensor) -> None:
        """A value that is computed from parameters alone is whole if one of its shape was."""
        shapes = [tensor.shape for tensor in tensors_in(args)]
        for value, shape in zip(node.inputs, shapes, strict=False):
            if value in self._whole and shape == result.shape and node.outputs[0] is not None:
                self._whole.add(node.outputs[0])

    def _refuse_shared_noise(self, op: Any, values: list[int], result: Any) -> None:
        """Noise that is one for the batch: three calls would draw it three times."""
        if not self.samples:
            return
        noise = result if isinstance(result, Tensor) else result[0]
        of_parameters = any(value >= 0 and not self.recording.active[value] for value in values)
        if of_parameters or not noise.dim() or noise.shape[0] % self.samples:
            raise CrossSample(f"{op} draws numbers that all samples share")

    def _outside(self, tensor: Tensor) -> None:
        if tensor.requires_grad:
            raise Unsupported("the critic writes into one of its own parameters")
        self.recording.stateful = True
        self.recording.changed.append((tensor, tensor.clone()))

    def _check_stale(self, given: list[Tensor], values: list[int]) -> None:
        for tensor, value in zip(given, values, strict=True):
            since = self._mutated.get(tensor.untyped_storage()._cdata)
            if since is not None and value < since[0]:
                raise Unsupported(
                    "a tensor is used after another view of its memory was written in place"
                )
