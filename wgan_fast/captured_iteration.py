"""Captured training iterations, each with the memory that it reads."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from wgan_fast.cuda_graph import WARM_UP_CALLS, Graph, StaticInput
from wgan_fast.signature import Signature


class CapturedIteration:
    """One captured iteration and the memory that it reads."""

    def __init__(self, graph: Graph, tensors: Sequence[Tensor], weight: Tensor) -> None:
        self._graph = graph
        self._inputs, self._weight = [StaticInput(one) for one in tensors], StaticInput(weight)
        self._calls = 0
        self._seen: Tensor | None = None
        self.capturing = False

    def __call__(
        self,
        iterate: Callable[[Sequence[Tensor], Tensor], Tensor],
        tensors: Sequence[Tensor],
        weight: float | None,
    ) -> Tensor:
        """One iteration on ``tensors``: the first ones for real, then captured, then replayed.

        ``weight`` is λ; None if the iteration has its own on the device.
        """
        for static, one in zip(self._inputs, tensors, strict=True):
            static.fill(one)
        if weight is not None:
            self._weight.tensor.fill_(weight)

        def run() -> Tensor:
            return iterate([static.tensor for static in self._inputs], self._weight.tensor)

        if self._calls < WARM_UP_CALLS:
            self._calls += 1
            return self._graph.warm_up(run)
        if self._seen is None:
            self.capturing = True
            self._seen = self._graph.capture(run)
            self.capturing = False
        self._graph.replay()
        return self._seen.clone()


class CapturedIterations:
    """Those of one loop over ``modules``: one for each set of facts that is written into them."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._signature = Signature(modules)
        self._programs: dict[Any, CapturedIteration] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy captures its own."""
        return vars(self) | {"_programs": {}}

    def of(
        self,
        facts: tuple[Any, ...],
        tensors: Sequence[Tensor],
        make: Callable[[], CapturedIteration],
        kept: int,
    ) -> CapturedIteration:
        """The one for ``tensors`` and ``facts``, made if it is not there; ``kept`` at most stay."""
        key = (*self._signature.now(tensors), *facts)
        if key not in self._programs:
            self._signature = Signature(self._modules)  # a part may have been replaced since
            key = (*self._signature.now(tensors), *facts)
            if len(self._programs) >= kept:
                self._programs.pop(next(iter(self._programs)))
            self._programs[key] = make()
        return self._programs[key]
