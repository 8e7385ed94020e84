"""The steps of a training loop's optimisers, by the gradients of the loop's own steps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wgan_fast import optimizer_step
from wgan_fast.frozen_function import Function
from wgan_fast.side_by_side import SideBySide
from wgan_fast.steps import trained

Results = Sequence[Tensor | None]


class Updates:
    """Steps that give something and a gradient, or None, for each trained parameter of a module.

    What an Adam does with these is asked once, and holds as long as nobody touches it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._known: _Known | None = None

    def take(self, optimizer: Optimizer, run: Function, *arguments: Tensor) -> Results:
        """The results of ``run``, by whose gradients the optimiser has taken a step.

        The gradients stay on the parameters.
        """
        known = self._known
        at_once = run if isinstance(run, SideBySide) and run.graph.replays else None
        if at_once and known and known.holds(optimizer, at_once.graph.given):
            results: Results = at_once.and_step(known.adam, known.places, *arguments)
        else:
            results = run(*arguments)
            parameters = trained(self._module).values()
            for parameter, gradient in zip(parameters, results[1:], strict=True):
                parameter.grad = gradient
            optimizer_step.take(optimizer)
            self._known = _known(optimizer, self._module, results) if at_once else None
        # Autocast keeps narrow copies of weights until its context ends; the whole loop may lie in
        # one.
        torch.clear_autocast_cache()
        return results


class _Known:
    """The steps of an Adam on a module's parameters, as long as they stay what they were."""

    def __init__(
        self, optimizer: Optimizer, module: nn.Module, adam: Any, places: list[int], given: Any
    ) -> None:
        from wgan_fast._C import Snapshot

        self.adam = adam
        """The extension's."""
        self.places = places
        """Those of the gradients among a step's results."""
        self._given = given
        self._optimizer = optimizer
        self._members = _members(optimizer)
        parts: list[Any] = []
        for one in module.modules():
            parts += [one._parameters, one._modules]
        parts += [vars(optimizer), *optimizer.param_groups]
        parts += [optimizer.state, *optimizer.state.values()]
        self._snapshot = Snapshot([], parts)

    def holds(self, optimizer: Optimizer, given: list[bool]) -> bool:
        """Whether all is as it was but for tensors' numbers, for a step that gives such results."""
        return (
            optimizer is self._optimizer
            and given == self._given
            and self._snapshot.holds()
            and _members(optimizer) == self._members
            and not optimizer_step.is_watched(optimizer)
        )


def _known(optimizer: Optimizer, module: nn.Module, results: Results) -> _Known | None:
    """After a step by these results; None where the next ones take more than one call."""
    updates = optimizer_step.updates_of(optimizer)
    if updates is None or len(updates) != 1:
        return None
    parameters, adam = updates[0]
    given = [result is not None for result in results]
    places = {
        id(parameter): place
        for place, parameter in enumerate(trained(module).values(), 1)
        if given[place]
    }
    if {id(parameter) for parameter in parameters} != set(places):
        return None
    return _Known(optimizer, module, adam, [places[id(one)] for one in parameters], given)


def _members(optimizer: Optimizer) -> list[int]:
    return [id(one) for group in optimizer.param_groups for one in (group, *group["params"])]


def hyperparameters(*optimizers: Optimizer) -> list[Any]:
    """What a captured step has of its optimiser: numbers by value, tensors by where they lie."""
    return [
        value if not isinstance(value, Tensor) else id(value)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for name, value in group.items()
        if name != "params"
    ]
