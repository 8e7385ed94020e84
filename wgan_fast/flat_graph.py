"""A function of tensors as a flat list of ATen ops: traced once, replayed without its Python.

``make_fx`` writes down every op that a function dispatches, autograd's backward among them. What
comes out holds no autograd and no control flow: it runs below autograd, can be given to Inductor,
and waits for no device. It is what the function did on the tensors that it was traced on, so that
whoever keeps one must know when the function would do something else
(:class:`wgan_fast.signature.Signature`).
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen
from torch.overrides import TorchFunctionMode

from wgan_fast.graph_memory import reshaped_in_place, reuse_memory, seen, shares_memory
from wgan_fast.microkernel import take_products
from wgan_fast.replay import mean_of, replay_of
from wgan_fast.stacked_products import stack_products
from wgan_fast.thin_products import turn_thin_products

aten = torch.ops.aten

# The same memory under another name.
_ALIASES = {aten.alias.default, aten.detach.default, aten.lift_fresh.default}


# A trace changes nn.Module for all threads, and puts back what it found.
_TRACING = threading.RLock()


class TraceError(RuntimeError):
    """A function that a flat graph cannot stand for."""


class FlatGraph:
    """A traced function; :meth:`__call__` runs it on other numbers of the same shapes."""

    def __init__(self, module: GraphModule, state: list[Tensor]) -> None:
        self.module = module
        self.state = state
        """What the graph takes before its arguments: parameters, buffers, and tensors that the
        function reaches otherwise. Held here, they are the function's own, read as they are now."""
        replay = replay_of(module.graph, shares_memory(module.graph))
        self.replays = replay is not None
        """Whether the compiled extension runs it, and not Python."""
        self.largest = _largest(module.graph, state)
        """Bytes of the largest tensor in it, but for ``state`` and what has its shape."""
        (results,) = module.graph.find_nodes(op="output")[0].args
        self.sizes = [_bytes(seen(result)) for result in results]
        """Bytes of each result."""
        self.given = [result is not None for result in results]
        """Which results are tensors, and not None."""
        self._run: Callable[..., Any] = replay or _below_autograd(module.forward)

    def __call__(self, *arguments: Tensor) -> list[Tensor | None]:
        """The function's results; autograd and autocast see nothing of it."""
        return self._run(*self.state, *arguments)  # type: ignore[no-any-return]

    def mean(
        self, arguments: Sequence[Tensor], parts: int, rows: Sequence[int]
    ) -> list[Tensor | None]:
        """The results' means over equal parts of the arguments, which run side by side.

        Each part is computed in one thread. At the places in ``rows`` the results are concatenated
        instead. Only where the graph ``replays``.
        """
        return mean_of(self._run, self.state, arguments, parts, rows)

    def mean_and_step(
        self,
        arguments: Sequence[Tensor],
        parts: int,
        rows: Sequence[int],
        adam: Any,
        gradients: Sequence[int],
    ) -> list[Tensor | None]:
        """:meth:`mean`, and a step of the extension's ``adam`` by the results at these places."""
        given = *self.state, *arguments
        return self._run.mean_and_step(  # type: ignore[attr-defined, no-any-return]
            given, len(self.state), parts, rows, adam, gradients
        )

    @property
    def ops(self) -> list[Any]:
        """The operators, in the order they run."""
        return [node.target for node in self.module.graph.nodes if node.op == "call_function"]

    def compile(self, arguments: Sequence[Tensor], threads: int | None = None) -> None:
        """Hand the graph to Inductor, for so many threads; what it compiled takes its place.

        Random numbers stay those of the uncompiled ops.
        """
        from torch._inductor import compile  # seconds, which only those who compile should pay

        inputs: list[Any] = [*self.state, *arguments]
        # On a CPU, kernels of microseconds would wait for the Python that calls them.
        in_cpp = all(tensor.is_cpu for tensor in inputs)
        for node in self.module.graph.nodes:
            node.meta.clear()  # what tracing saw would be taken for inputs of another trace
        options: dict[str, Any] = {"fallback_random": True, "cpp_wrapper": in_cpp}
        if threads is not None:
            options["cpp.threads"] = threads
        with torch.no_grad(), _without_autocast():
            self._run = _below_autograd(compile(self.module, inputs, options=options))
        self.replays = False


class UncheckedOneHot(TorchFunctionMode):
    """``F.one_hot(labels, classes)`` without its check of the labels, which no graph can take.

    Labels out of range give a row of zeros in here, where the function itself raises on a CPU.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.one_hot:
            labels, classes = _labels_and_classes(*args, **kwargs)
            if classes > 0 and labels.dtype == torch.int64:
                return (labels.unsqueeze(-1) == torch.arange(classes, device=labels.device)).long()
        return func(*args, **kwargs)


def _labels_and_classes(tensor: Tensor, num_classes: int = -1) -> tuple[Tensor, int]:
    return tensor, num_classes


def trace(
    function: Callable[..., Sequence[Tensor | None]],
    state: Sequence[Tensor],
    arguments: Sequence[Tensor],
    inside: AbstractContextManager[Any] | None = None,
    to_the_bit: bool = False,
) -> FlatGraph:
    """Run ``function(*arguments)`` once, in the context ``inside``, and keep what it dispatched.

    ``state`` names the tensors that the function reads or writes besides: they become inputs, so
    that a number read from them (``.item()``) is noticed and not written into the graph. Unless
    results have to be the function's own ``to_the_bit``, sums and products are joined, thin
    products turned, and others made by faster kernels.

    Raises:
        TraceError: the function reads a number out of a tensor, as a Python branch on a loss does.
    """
    arguments = [argument.detach() for argument in arguments]  # objects of their own, to be told
    names = len(state)
    inside = inside or nullcontext()

    def flat(*tensors: Tensor) -> list[Tensor | None]:
        with inside, UncheckedOneHot():
            return list(function(*tensors[names:]))

    try:
        with _TRACING:
            module = make_fx(flat)(*state, *arguments)
    except Exception as error:
        if _reads_numbers(error):
            raise TraceError(
                "it reads a number out of a tensor (.item(), float(), a Python branch on a "
                f"value), which would be another one in the next step: {error}"
            ) from error
        raise
    module.graph.set_codegen(CodeGen())
    found = _constants_as_inputs(module, names)
    simplify(module.graph)
    if not to_the_bit:
        join_products(module.graph)
        stack_products(module.graph)
        turn_thin_products(module.graph)
        take_products(module.graph)
    reuse_memory(module.graph)
    module.recompile()
    return FlatGraph(module, [*state, *found])


def _reads_numbers(error: BaseException | None) -> bool:
    """Whether make_fx stopped because a traced tensor was asked for its number."""
    while error is not None:
        said = str(error)
        if "data-dependent" in said or "get value out of a tracing tensor" in said:
            return True
        if type(error).__name__ == "DataDependentOutputException":
            return True
        error = error.__cause__ or error.__context__
    return False


def _constants_as_inputs(module: GraphModule, names: int) -> list[Tensor]:
    """Turn the tensors that the tracer met by itself into inputs, after the ``names`` first."""
    graph = module.graph
    found: dict[str, Tensor] = {}
    inputs: dict[str, Node] = {}
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    # Before the arguments; where there are none, before the first op.
    rest = placeholders[names:]
    place = rest[0] if rest else next(node for node in graph.nodes if node.op != "placeholder")
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        if node.target not in inputs:
            found[node.target] = getattr(module, node.target)
            with graph.inserting_before(place):
                inputs[node.target] = graph.placeholder(f"held_{len(inputs)}")
            inputs[node.target].meta = node.meta
        node.replace_all_uses_with(inputs[node.target])
        graph.erase_node(node)
    return list(found.values())


def simplify(graph: Graph) -> None:
    """Take out what does nothing or was done before."""
    views: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        same = node.args[0] if _does_nothing(node) else None
        is_view = isinstance(node.target, OpOverload) and node.target.is_view
        if same is None and is_view and not any(map(reshaped_in_place, (node, node.args[0]))):
            # Views of one tensor by the same numbers are one, whatever is written into it.
            same = views.setdefault((node.target, str(node.args), str(node.kwargs)), node)
        if same is not None and same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    graph.eliminate_dead_code()


def join_products(graph: Graph) -> None:
    """Let one kernel multiply matrices and add what is added to their product."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is aten.add.Tensor:
            _add_to_product(graph, node)
    graph.eliminate_dead_code()


def _does_nothing(node: Node) -> bool:
    """Whether the result is the first argument itself."""
    if reshaped_in_place(node):
        return False
    if node.target in _ALIASES:
        return True
    if node.target in (aten.slice.Tensor, aten.view.default, aten.expand.default):
        source, result = seen(node.args[0]), seen(node)
        if source is None or result is None:
            return False
        return source.shape == result.shape and source.stride() == result.stride()
    return False


def _between(first: Node, last: Node) -> Iterator[Node]:
    node = first.next
    while node is not last:
        yield node
        node = node.next


def _writes(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _largest(graph: Graph, state: Iterable[Tensor]) -> int:
    of_state = {tuple(sorted(tensor.shape)) for tensor in state}  # also of what is transposed
    made = [seen(node) for node in graph.nodes if node.op == "call_function"]
    others = [one for one in made if one is None or tuple(sorted(one.shape)) not in of_state]
    return max(map(_bytes, others), default=0)


def _bytes(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size()


def _add_to_product(graph: Graph, node: Node) -> None:
    """X + A B in one call: a weight's gradient from the loss's rows and from the penalty's."""
    if node.kwargs or len(node.args) != 2:
        return
    for total, product in (node.args, node.args[::-1]):
        if not (isinstance(product, Node) and product.target is aten.mm.default):
            continue
        if not isinstance(total, Node) or len(product.users) > 1:
            continue
        if any(_writes(between) for between in _between(product, node)):
            continue  # into the product's own arguments, maybe
        whole, part = seen(total), seen(product)
        if whole is None or part is None or (whole.shape, whole.dtype) != (part.shape, part.dtype):
            continue
        with graph.inserting_before(node):
            joined = graph.call_function(aten.addmm.default, (total, *product.args))
        joined.meta = node.meta
        node.replace_all_uses_with(joined)
        graph.erase_node(node)
        return


def _below_autograd(run: Callable[..., Any]) -> Callable[..., Any]:
    """The function where autograd and autocast see nothing of it, as replays are by themselves."""

    def below(*arguments: Tensor) -> Any:
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd(), _without_autocast():
            return run(*arguments)

    return below


class _without_autocast:  # noqa: N801 - used as a function
    """Casts are in the graph already; a second time, they would reach what was left wide."""

    def __enter__(self) -> None:
        self._were = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        for kind in self._were:
            torch.set_autocast_enabled(kind, False)

    def __exit__(self, *unused: object) -> None:
        for kind in self._were:
            torch.set_autocast_enabled(kind, True)
