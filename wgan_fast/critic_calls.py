"""A critic with all that it is called with, as a function from one tensor to scores.

Labels that a critic takes with its samples, outputs of which one is the score, packs of samples,
samples of several tensors, a mask on the gradient: backends call a :class:`CriticCall` like any
critic, and ask it for parts of its batch.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgan_fast.arguments import check_scores, describe
from wgan_fast.objectives import Objective
from wgan_fast.sample_forms import Form

Triple = tuple[Tensor, Tensor, Tensor]
Measure = Callable[[Tensor, Tensor | None], Triple]
"""From a gradient and the mask that it is multiplied by to (norms, penalties, direction)."""


@dataclasses.dataclass(frozen=True, eq=False)
class CriticCall:
    """A critic and what it is called with: ``call(x)`` gives the scores of the rows of ``x``.

    The batch that it is given may be a whole number of times as large as the one it was made for:
    real, fake and interpolated samples, each with the same conditions.
    """

    critic: Callable[..., Any]
    form: Form
    cond: tuple[Tensor, ...]
    """One row per sample."""
    cond_kwargs: dict[str, Tensor]
    """The same, passed by name."""
    fixed: dict[str, Any]
    """Passed by name, and the same for all samples."""
    select: Any
    mask: Tensor | None
    """What the gradient is multiplied by, a row per score."""
    separate: bool
    """A penalty for each tensor of the samples."""
    samples: int
    """The rows of the conditions."""
    scales: list[tuple[int, ...]] = dataclasses.field(default_factory=list)
    """The shapes, without the batch's axis, of the scores that the last call gave; shared by all
    that are made of this one."""

    def __call__(self, x: Tensor) -> Tensor:
        """The scores, ``(B/pac, ...)``; those of several scales side by side."""
        call = self if x.shape[0] * self.form.pac == self.samples else self.repeated(x.shape[0])
        result = self.critic(self.form.restored(x), *call.cond, **call.cond_kwargs, **self.fixed)
        if self.select is None:
            return result  # type: ignore[no-any-return]
        result = self._selected(result)
        if not isinstance(result, (list, tuple)):
            self.scales.clear()
            return result  # type: ignore[no-any-return]
        scores = [check_scores(scale, x) for scale in result]
        if not scores:
            raise ValueError("select: expected the scores of at least one scale, got none")
        self.scales[:] = [tuple(scale.shape[1:]) for scale in scores]
        return torch.cat([scale.reshape(x.shape[0], -1) for scale in scores], 1)

    def _selected(self, result: Any) -> Any:
        if callable(self.select):
            return self.select(result)
        try:
            return result[self.select]
        except (KeyError, IndexError, TypeError) as error:
            keys = f" with keys {list(result)}" if isinstance(result, Mapping) else ""
            raise ValueError(
                f"select: expected an index or a key of what the critic returns, "
                f"{describe(result)}{keys}, got {self.select!r}"
            ) from error

    @property
    def conditions(self) -> list[Tensor]:
        """All that has one row per sample."""
        return [*self.cond, *self.cond_kwargs.values()]

    @property
    def shared(self) -> list[Tensor]:
        """All tensors that are the same for all samples."""
        return [value for value in self.fixed.values() if isinstance(value, Tensor)]

    @property
    def tensors(self) -> list[Tensor]:
        """All that it is called with: what a graph of it takes as inputs."""
        return [*self.conditions, *self.shared, *([] if self.mask is None else [self.mask])]

    def on(self, tensors: Sequence[Tensor], packs: int) -> "CriticCall":
        """The same with other tensors, in the order of ``tensors``, for so many rows of scores."""
        given = iter(tensors)
        return dataclasses.replace(
            self,
            samples=packs * self.form.pac,
            cond=tuple(next(given) for _ in self.cond),
            cond_kwargs={name: next(given) for name in self.cond_kwargs},
            fixed={
                name: next(given) if isinstance(value, Tensor) else value
                for name, value in self.fixed.items()
            },
            mask=None if self.mask is None else next(given),
        )

    @property
    def key(self) -> Any:
        """Equal for calls of one critic in the same form; the values of arguments are not in it."""
        select = getattr(self.select, "__code__", None) or repr(self.select)
        conditions = tuple((tensor.shape[1:], tensor.dtype) for tensor in self.conditions)
        named = tuple(self.cond_kwargs), tuple(self.fixed)
        return self.form.key, select, conditions, *named, self.mask is not None

    def of_rows(self, part: slice) -> "CriticCall":
        """For a slice of the scores' rows."""
        pac, packs = self.form.pac, self.samples // self.form.pac
        start, stop, _ = part.indices(packs)
        if (start, stop) == (0, packs):
            return self
        mask = None if self.mask is None else self.mask[part]
        cut = slice(start * pac, stop * pac)
        return self._changed(lambda tensor: tensor[cut], (stop - start) * pac, mask)

    def repeated(self, rows: int) -> "CriticCall":
        """For a batch of ``rows`` rows; its conditions are tensors of its own."""
        times = rows * self.form.pac // self.samples

        def tiled(tensor: Tensor) -> Tensor:
            if times == 1:
                return tensor.view_as(tensor)
            return tensor.repeat(times, *[1] * (tensor.dim() - 1))

        return self._changed(tiled, times * self.samples, self.mask)

    def _changed(
        self, change: Callable[[Tensor], Tensor], samples: int, mask: Tensor | None
    ) -> "CriticCall":
        return dataclasses.replace(
            self,
            cond=tuple(change(tensor) for tensor in self.cond),
            cond_kwargs={name: change(tensor) for name, tensor in self.cond_kwargs.items()},
            samples=samples,
            mask=mask,
        )

    def measured(self, gradient: Tensor, measure: Measure) -> Triple:
        """``measure`` of the gradient under the mask; for each tensor apart if so asked."""
        mask = self.mask
        if mask is not None:
            times = gradient.shape[0] // mask.shape[0]
            mask = mask if times == 1 else mask.repeat(times, *[1] * (mask.dim() - 1))
            mask = mask.to(gradient.dtype)
        if not self.separate:
            return measure(gradient, mask)
        parts = gradient.split(self.form.sizes, 1)
        masks = [None] * len(parts) if mask is None else mask.split(self.form.sizes, 1)
        found = [measure(part, of_part) for part, of_part in zip(parts, masks, strict=True)]
        norms, penalties, directions = zip(*found, strict=True)
        total = torch.stack(penalties, 1).sum(1)
        return torch.stack(norms, 1), total, torch.cat(directions, 1)


def measured(critic: Any, gradient: Tensor, measure: Measure) -> Triple:
    """(norms, penalties, direction) of a critic's input gradient, as ``measure`` finds them."""
    if isinstance(critic, CriticCall):
        return critic.measured(gradient, measure)
    return measure(gradient, None)


def of_rows(critic: Any, part: slice) -> Any:
    """The critic for a slice of its batch."""
    return critic.of_rows(part) if isinstance(critic, CriticCall) else critic


class PerScale:
    """An objective of each scale's scores, in the shape they were returned in, summed."""

    def __init__(self, of_one: Objective, critic: CriticCall) -> None:
        self.of_one = of_one
        self.critic = critic

    def __call__(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
        """Σ over the scales, of the scores that the critic gave last."""
        shapes = self.critic.scales
        if not shapes:
            return self.of_one(real_scores, fake_scores)
        sizes = [torch.Size(shape).numel() for shape in shapes]
        pairs = zip(real_scores.split(sizes, 1), fake_scores.split(sizes, 1), shapes, strict=True)
        losses = [
            self.of_one(real.reshape(-1, *shape), fake.reshape(-1, *shape))
            for real, fake, shape in pairs
        ]
        return torch.stack(losses).sum()


def objective_of(critic: Any, objective: Objective) -> Objective:
    """The objective of a critic's scores: summed over the scales of one that has some."""
    if isinstance(critic, CriticCall) and critic.select is not None:
        return PerScale(objective, critic)
    return objective


def settled(objective: Objective) -> Objective:
    """The objective itself, once the critic was called and has turned out to have no scales."""
    if isinstance(objective, PerScale) and not objective.critic.scales:
        return objective.of_one
    return objective
