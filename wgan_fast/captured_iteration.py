"""One captured training iteration and the memory that it reads."""

from collections.abc import Callable

from torch import Tensor

from wgan_fast.cuda_graph import WARM_UP_CALLS, Graph, StaticInput


class CapturedIteration:
    """One captured iteration and the memory that it reads."""

    def __init__(self, graph: Graph, reals: Tensor, weight: Tensor) -> None:
        self._graph = graph
        self._reals, self._weight = StaticInput(reals), StaticInput(weight)
        self._calls = 0
        self._seen: Tensor | None = None
        self.capturing = False

    def __call__(
        self, iterate: Callable[[Tensor, Tensor], Tensor], reals: Tensor, weight: float | None
    ) -> Tensor:
        """One iteration: the first ones for real, then captured, then replayed.

        ``weight`` is λ; None if the iteration has its own on the device.
        """
        self._reals.fill(reals)
        if weight is not None:
            self._weight.tensor.fill_(weight)

        def run() -> Tensor:
            return iterate(self._reals.tensor, self._weight.tensor)

        if self._calls < WARM_UP_CALLS:
            self._calls += 1
            return self._graph.warm_up(run)
        if self._seen is None:
            self.capturing = True
            self._seen = self._graph.capture(run)
            self.capturing = False
        self._graph.replay()
        return self._seen.clone()
