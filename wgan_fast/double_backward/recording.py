"""Run a critic once, below autograd, and write down every ATen op that a derivative can pass.

The critic runs with gradients enabled, so that its own ``no_grad`` blocks are seen, but below
autograd's dispatch keys, so that no graph is built. What stays is a flat list of nodes over values:
each value is the input, a parameter, or the output of a node.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_fast.critic_calls import CriticCall
from wgan_fast.double_backward.choice import Memory
from wgan_fast.double_backward.errors import CrossSample, Unsupported
from wgan_fast.double_backward.marks import CONDITION, CONSTANT, TAINTED, mark_of, set_mark
from wgan_fast.double_backward.memory_format import ChannelsLast

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

_sees_strides = Memory()


class Node:
    """One recorded op: its rule, the values it took and gave, and what its rule keeps of them."""

    __slots__ = (
        "active", "bends", "inputs", "keeps_delta", "kept", "op", "outputs", "parameters",
        "parametric", "rows", "rule", "several", "versions",
    )  # fmt: skip

    def __init__(
        self, op: Any, rule: Any, inputs: list[int | None], outputs: list[int | None]
    ) -> None:
        self.op = op
        self.rule = rule
        self.inputs = inputs
        """Per tensor argument, in order: the value it is, or None for a constant."""
        self.outputs = outputs
        """Per result: the value it is, or None for one that no derivative passes."""
        self.rows: list[Tensor | None] = []
        """Tensors that the rule keeps, whose first axis is the batch's."""
        self.kept: Any = None
        """Everything else that the rule keeps."""
        self.versions: list[int] = []

    def look_at(self, active: list[bool]) -> None:
        """Note once of the arguments what every pass asks."""
        self.active = [value is not None and active[value] for value in self.inputs]
        """Per argument, whether it depends on the critic's input."""
        self.parameters = [value is not None and not active[value] for value in self.inputs]
        """Per argument, whether it depends on parameters alone."""
        self.parametric = True in self.parameters
        self.several = self.active.count(True) > 1
        self.bends = self.rule.curved or (self.several and self.rule.bilinear)
        """Whether the second-order term may reach a value that depends on the input."""
        self.keeps_delta = self.parametric or self.bends
        """Whether ``second`` has a use for Δ."""


class Recording:
    """The nodes of one call of a critic, in the order they ran."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        """Those that depend on the input."""
        self.parameter_nodes: list[Node] = []
        """Those that depend on parameters alone: a spectral norm, a weight's transpose."""
        self.leaves: list[tuple[int, Tensor]] = []
        """The parameters met, with their values' numbers."""
        self.active: list[bool] = []
        """Per value: whether it depends on the input."""
        self.input = self.new_value(active=True)
        self.score = CONSTANT
        self.scores: Any = None
        self.stateful = False
        """Whether the critic changed tensors that are older than the call."""
        self.random = False
        """Whether random numbers were drawn."""
        self.half = False
        """Whether float16 is among the values."""

    def scale_for(self, scores: int) -> float:
        """How much larger to make cotangents than those of a mean over so many scores.

        Half precision has no room for 1/B, nor for a sum over very many; what comes out is divided
        in float32. GradScaler comes too late: its factor multiplies gradients that are done.
        """
        return float(min(scores, 64)) if self.half else 1.0

    def new_value(self, active: bool) -> int:
        """The number of one more value."""
        self.active.append(active)
        return len(self.active) - 1


def tensors_in(arguments: Iterable[Any]) -> Iterator[Tensor]:
    """The tensor arguments of an op in order, lists of tensors laid flat."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, (list, tuple)):
            yield from (item for item in argument if isinstance(item, Tensor))


def _listed(result: Any) -> Any:
    return result if isinstance(result, (list, tuple)) else (result,)


class Recorder(TorchDispatchMode):
    """Writes a :class:`Recording`; ``samples`` > 0 demands that rows stay apart, or raises."""

    def __init__(
        self, rule_of: Callable[[Any], Any], samples: int = 0, layout: ChannelsLast | None = None
    ) -> None:
        super().__init__()
        self.layout = layout
        self.rule_of = rule_of
        self.samples = samples
        self.recording = Recording()
        self._parameters: dict[int, int] = {}
        self._mutated: dict[int, tuple[int, StorageWeakRef]] = {}
        self._journal: list[tuple[Tensor, Tensor]] = []
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
        if mark < 0 and tensor.requires_grad:
            if not torch.is_grad_enabled():
                return CONSTANT
            value = self._parameters.get(id(tensor))
            if value is None:
                value = self._parameters[id(tensor)] = self.recording.new_value(active=False)
                self.recording.leaves.append((value, tensor))
            return value
        return mark

    def roll_back(self) -> None:
        """Give every tensor that the critic changed the numbers that it had before the call."""
        for tensor, before in reversed(self._journal):
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
        active = active or (differentiable and CONDITION in values)
        tainted = active or TAINTED in values
        otherwise = TAINTED if tainted else CONDITION if CONDITION in values else CONSTANT

        apart = not (tainted and self.samples)
        if not apart:
            if rule.crosses_samples(args):
                raise CrossSample(f"{op} mixes the samples of a batch")
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
        result = op(*args, **kwargs)
        if random:
            self._refuse_shared_noise(op, values, result)
        if not (apart or rule.keeps_rows(self.samples, args, result)):
            raise CrossSample(f"{op} may mix the samples of a batch")
        self._write(op, rule, args, kwargs, values, result, differentiable, active, otherwise)
        return result

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
        self._unversioned = node
        (self.recording.nodes if active else self.recording.parameter_nodes).append(node)

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
            for tensor in written:
                self.mark(tensor, otherwise)
            return result
        functional = rule.functional
        if functional is None or len(written) != 1 or written[0] is not args[0]:
            raise Unsupported(f"{op} writes into its arguments in a way that cannot be recorded")
        target = args[0]
        rule = self.rule_of(functional)
        if tainted and self.samples and not rule.keeps_rows(self.samples, args, target):
            raise CrossSample(f"{op} may mix the samples of a batch")
        active = CONDITION in values or any(
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
            computed = parametric and id(tensor) not in self._parameters and tensor.dim() > 0
            if computed and tensor.shape[0] % self.samples == 0:
                raise CrossSample("a value that depends on parameters alone has a row per sample")

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
        self._journal.append((tensor, tensor.clone()))

    def _check_stale(self, given: list[Tensor], values: list[int]) -> None:
        for tensor, value in zip(given, values, strict=True):
            since = self._mutated.get(tensor.untyped_storage()._cdata)
            if since is not None and value < since[0]:
                raise Unsupported(
                    "a tensor is used after another view of its memory was written in place"
                )


def record(
    critic: Callable[[Tensor], Any],
    x: Tensor,
    rule_of: Callable[[Any], Any],
    rows_apart: bool = False,
) -> Recording:
    """Call ``critic`` on ``x`` and record it.

    If it raises, the critic's state and the random numbers are as they were before the call.

    Raises:
        Unsupported: something in the critic cannot be recorded exactly.
        CrossSample: with ``rows_apart``, samples are mixed or the critic has state.
    """
    try:
        return _in_either_layout(critic, x, rule_of, x.shape[0] if rows_apart else 0)
    except (CrossSample, Unsupported, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if rows_apart:
            # Its batch may be tied to the size it was made for: labels in a closure, say.
            raise CrossSample(f"the critic fails on a batch of another size: {error}") from error
        raise


def _in_either_layout(
    critic: Callable[[Tensor], Any], x: Tensor, rule_of: Callable[[Any], Any], samples: int
) -> Recording:
    if ChannelsLast.suits(x) and not _sees_strides.get(critic):
        layout = ChannelsLast()
        try:
            return _record(critic, x, Recorder(rule_of, samples, layout))
        except (CrossSample, torch.OutOfMemoryError):
            raise
        except Exception:
            if not layout.used:
                raise
        # Whether it was the strides, a call without will tell.
        _sees_strides.set(critic, True)
    return _record(critic, x, Recorder(rule_of, samples))


def _record(critic: Callable[[Tensor], Any], x: Tensor, recorder: Recorder) -> Recording:
    x = x.detach().view_as(x)  # a new tensor object, to carry this recording's mark
    recorder.mark(x, recorder.recording.input)
    random = torch.cuda if x.device.type == "cuda" else torch.random
    random_state = random.get_rng_state()
    caches_casts = torch.is_autocast_cache_enabled()
    # A cached cast of a weight would outlive the recording, without autograd knowing of it.
    torch.set_autocast_cache_enabled(False)
    if recorder.samples and isinstance(critic, CriticCall):
        critic = critic.repeated(len(x))
        for condition in critic.conditions:
            recorder.mark(condition, CONDITION)
    try:
        with torch.enable_grad(), torch._C._AutoDispatchBelowAutograd(), recorder:
            scores = critic(x)
        if recorder.samples and recorder.recording.stateful:
            raise CrossSample("the critic changes its own state in every call")
        return recorder.finish(scores)
    except Exception:
        recorder.roll_back()
        random.set_rng_state(random_state)
        raise
    finally:
        torch.set_autocast_cache_enabled(caches_casts)
