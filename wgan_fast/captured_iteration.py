"""One captured training iteration and the memory that it reads."""

from collections.abc import Callable, Sequence

from torch import Tensor

from wgan_fast.cuda_graph import WARM_UP_CALLS, Graph, StaticInput


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
