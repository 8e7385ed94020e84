"""The steps of a training loop's optimisers, on gradients that are there already."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wgan_fast import optimizer_step
from wgan_fast.optimizer_step import Update

Gradients = Sequence[Tensor | None]


class Updates:
    """One optimiser's steps within an iteration, in which nobody else touches it.

    What a step takes is asked once, before the second one, and holds for the others.
    """

    def __init__(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        self._optimizer = optimizer
        self._parameters = list(parameters)
        self._given: list[bool] | None = None
        """For which parameters the last step had gradients."""
        self._known: list[tuple[Update, list[int]]] | None = None
        """The updates of such a step, and which of the gradients each one takes."""

    def take(self, gradients: Gradients) -> None:
        """One step on these gradients, one or None for each parameter."""
        given = [gradient is not None for gradient in gradients]
        if given != self._given:
            self._known = None
        elif self._known is None:
            self._known = self._asked()
        self._given = given
        if self._known is None:
            self.give(gradients)
            optimizer_step.take(self._optimizer)
        else:
            for update, places in self._known:
                update([gradients[place] for place in places])  # type: ignore[misc]
        # Autocast keeps narrow copies of weights until its context ends; the whole loop may lie in
        # one.
        torch.clear_autocast_cache()

    def give(self, gradients: Gradients) -> None:
        """The parameters have these gradients, as they do after a step."""
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient

    def _asked(self) -> list[tuple[Update, list[int]]] | None:
        updates = optimizer_step.updates_of(self._optimizer)
        places = {id(parameter): place for place, parameter in enumerate(self._parameters)}
        if updates is None or not all(id(p) in places for u in updates for p in u.parameters):
            return None
        return [(u, [places[id(p)] for p in u.parameters]) for u in updates]


def hyperparameters(*optimizers: Optimizer) -> list[Any]:
    """What a captured step has of its optimiser: numbers by value, tensors by where they lie."""
    return [
        value if not isinstance(value, Tensor) else id(value)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for name, value in group.items()
        if name != "params"
    ]
