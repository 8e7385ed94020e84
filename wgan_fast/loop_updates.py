"""The steps of a training loop's optimisers, by the gradients of the loop's own steps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wgan_fast import optimizer_step
from wgan_fast.frozen_function import Function
from wgan_fast.optimizer_step import Update
from wgan_fast.side_by_side import SideBySide
from wgan_fast.steps import trained

Results = Sequence[Tensor | None]


class Updates:
    """An optimiser's steps by the gradients that a loop's own steps give of a module.

    Such a step gives something, and a gradient or None for each trained parameter. Where it runs
    side by side and the optimiser is an Adam, the two are one call: what that takes is asked after
    a step, and holds for the next ones as long as nobody touches module or optimiser.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._trained: list[nn.Parameter] | None = None
        self._one_call: _OneCall | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy asks its own optimiser."""
        return vars(self) | {"_trained": None, "_one_call": None}

    def begin(self) -> None:
        """Since the last step, other parameters may be trained."""
        self._trained = None

    def take(self, optimizer: Optimizer, run: Function, *arguments: Tensor) -> Results:
        """The results of ``run``, by whose gradients the optimiser has taken a step.

        The gradients stay on the parameters.
        """
        one_call = self._one_call
        side_by_side = run if isinstance(run, SideBySide) and run.graph.replays else None
        if side_by_side and one_call and one_call.holds(optimizer, side_by_side.graph.given):
            results: Results = side_by_side.and_step(one_call.adam, one_call.places, *arguments)
        else:
            self._one_call = None
            results = run(*arguments)
            if self._trained is None:
                self._trained = list(trained(self._module).values())
            for parameter, gradient in zip(self._trained, results[1:], strict=True):
                parameter.grad = gradient
            updates = optimizer_step.take(optimizer)
            if side_by_side and updates:
                self._one_call = _one_call(optimizer, updates, self._module, self._trained, results)
        # Autocast keeps narrow copies of weights until its context ends; the whole loop may lie in
        # one.
        torch.clear_autocast_cache()
        return results


class _OneCall:
    """What one call for a step and its update takes, and whether all is as it was."""

    def __init__(
        self,
        optimizer: Optimizer,
        adam: Any,
        places: list[int],
        given: list[bool],
        others: list[nn.Parameter],
        watched: list[dict[Any, Any]],
    ) -> None:
        from wgan_fast._C import Snapshot

        self.adam = adam
        """The extension's Adam of the parameters that have gradients."""
        self.places = places
        """Where these gradients stand among a step's results."""
        self._given = given
        self._others = others
        """Parameters of the module or the optimiser that have none."""
        self._optimizer = optimizer, type(optimizer)
        # The snapshot holds groups and parameters, so that no other objects get their numbers.
        self._members = _members(optimizer)
        self._snapshot = Snapshot([], watched)

    def holds(self, optimizer: Optimizer, given: list[bool]) -> bool:
        """Whether a step that ``given`` says the results of, and its update, are such ones."""
        return (
            (optimizer, type(optimizer)) == self._optimizer
            and given == self._given
            and self._snapshot.holds()
            and _members(optimizer) == self._members
            and not optimizer_step.is_watched(optimizer)
            and all(other.grad is None for other in self._others)
        )


def _one_call(
    optimizer: Optimizer,
    updates: list[Update],
    module: nn.Module,
    parameters: list[nn.Parameter],
    results: Results,
) -> _OneCall | None:
    """After a step by these results; None where the next ones take more than one call."""
    if len(updates) != 1:
        return None
    ((moved, adam),) = updates
    given = [result is not None for result in results]
    places = {id(one): place for place, one in enumerate(parameters, 1) if given[place]}
    if {id(one) for one in moved} != set(places):
        return None
    watched: list[Any] = [vars(optimizer), *optimizer.param_groups, optimizer.state]
    watched += [optimizer.state[one] for one in moved]
    for part in module.modules():
        watched += [part._parameters, part._modules]
    if not all(isinstance(held, dict) for held in watched):  # a scripted module's are none
        return None
    known = [*parameters, *(one for group in optimizer.param_groups for one in group["params"])]
    others = [one for one in known if id(one) not in places]
    return _OneCall(optimizer, adam, [places[id(one)] for one in moved], given, others, watched)


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
