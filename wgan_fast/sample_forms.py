"""Samples of several tensors, or in packs, as one tensor with a row per score."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import (
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_leaves,
    tree_unflatten,
)

from wgan_fast.arguments import check_pair, check_samples, describe


class Form:
    """How a critic's samples lie in one tensor, ``(B/pac, ...)``.

    A tensor ``(B, ...)`` becomes ``(B/pac, pac, ...)``, several become ``(B/pac, ΣD)``, side by
    side: a norm over all axes but the first is then over a pack, and over all tensors.
    """

    def __init__(self, samples: Any, pac: int) -> None:
        self.pac = pac
        leaves, self._tree = tree_flatten(samples)
        self.single = isinstance(samples, Tensor)
        self.batch = leaves[0].shape[0]
        """B."""
        self.device = leaves[0].device
        self._described = "a tensor" if self.single else describe(samples)
        self._shapes = tuple(leaf.shape[1:] for leaf in leaves)
        self.sizes = [pac * math.prod(shape) for shape in self._shapes]
        """How many numbers of a row belong to each tensor."""

    @property
    def key(self) -> Any:
        """Equal for forms that treat samples alike."""
        return self.pac, self._shapes, str(self._tree)

    def packed(self, samples: Any, steps: int = 0) -> Tensor:
        """The one tensor, differentiable in the samples.

        ``(steps, B, ...)`` becomes ``(steps, B/pac, ...)``, where there are any ``steps``.
        """
        axis = 1 if steps else 0
        if self.single:
            whole: Tensor = samples
            return whole if self.pac == 1 else whole.unflatten(axis, (-1, self.pac))
        leaves = tree_leaves(samples)
        leading = (*leaves[0].shape[:axis], leaves[0].shape[axis] // self.pac)
        return torch.cat([leaf.reshape(*leading, -1) for leaf in leaves], -1)

    def restored(self, packed: Tensor) -> Any:
        """The samples again, however many rows there are."""
        if self.single:
            return packed if self.pac == 1 else packed.flatten(0, 1)
        samples = packed.shape[0] * self.pac
        parts = packed.split(self.sizes, 1)
        shaped = zip(parts, self._shapes, strict=True)
        return tree_unflatten([part.reshape(samples, *shape) for part, shape in shaped], self._tree)

    def packed_mask(self, mask: Any, steps: int = 0) -> Tensor:
        """A mask, or one for each tensor, at the shape of the one tensor; checked."""
        leading = (steps, self.batch) if steps else (self.batch,)
        masks, tree = tree_flatten(mask)
        if tree != self._tree:
            raise ValueError(
                f"mask: expected the structure of the samples, a tensor for each tensor, got "
                f"{describe(mask)}"
            )
        spread = []
        for one, shape in zip(masks, self._shapes, strict=True):
            if not isinstance(one, Tensor) or one.is_complex():
                raise TypeError(f"mask: expected a tensor of numbers or bools, got {describe(one)}")
            if one.device != self.device:
                raise ValueError(
                    f"mask: expected the device of the samples, {self.device}, got {one.device}"
                )
            try:
                spread.append(one.detach().expand(*leading, *shape))
            except RuntimeError as error:
                raise ValueError(
                    f"mask: expected one that broadcasts to the samples' shape, "
                    f"{(*leading, *shape)}, got {describe(one)}"
                ) from error
        return self.packed(tree_unflatten(spread, tree), steps)

    def check_made(self, name: str, samples: Any) -> None:
        """Whether what ``name`` returned has this form, however many samples there are.

        Raises:
            TypeError, ValueError: it has another structure, or other shapes.
        """
        made, tree = tree_flatten(samples)
        if tree != self._tree or not all(isinstance(one, Tensor) for one in made):
            raise TypeError(
                f"{name}: expected samples in the structure of the real ones, "
                f"{self._described}, got {describe(samples)}"
            )
        shapes = [tuple(shape) for shape in self._shapes]
        found = [tuple(one.shape[1:]) for one in made]
        if found != shapes:
            wanted, got = (shapes[0], found[0]) if self.single else (shapes, found)
            raise ValueError(
                f"{name}: expected samples shaped as the real ones, {wanted}, got {got}"
            )


def check_several(name: str, samples: Any) -> None:
    """Samples of several tensors: equally many rows, one dtype, one device."""
    found, _ = tree_flatten_with_path(samples)
    if not found:
        raise ValueError(f"{name}: expected at least one tensor, got {describe(samples)}")
    first_path, first = found[0]
    for path, leaf in found:
        part = name + keystr(path)
        check_samples(part, leaf)
        if leaf.shape[0] != first.shape[0]:
            raise ValueError(
                f"{part}: expected as many samples as in {name}{keystr(first_path)}, "
                f"{first.shape[0]}, got {describe(leaf)}"
            )
        if leaf.dtype != first.dtype:
            raise TypeError(
                f"{part}: expected the dtype of {name}{keystr(first_path)}, {first.dtype}, got "
                f"{leaf.dtype}; the norm is over all tensors together"
            )
        if leaf.device != first.device:
            raise ValueError(
                f"{part}: expected the device of {name}{keystr(first_path)}, {first.device}, got "
                f"{leaf.device}"
            )


def check_several_pairs(real: Any, fake: Any) -> None:
    """``real`` and ``fake`` of several tensors each, in one structure and of the same shapes."""
    check_several("real", real)
    found, tree = tree_flatten_with_path(real)
    others, other_tree = tree_flatten(fake)
    if other_tree != tree:
        raise TypeError(
            f"fake: expected the structure of real, {describe(real)}, keys in the same order, got "
            f"{describe(fake)}"
        )
    for (path, leaf), other in zip(found, others, strict=True):
        check_pair(leaf, other, keystr(path))


def is_several(samples: Any) -> bool:
    """Whether samples are given as a container of tensors."""
    return isinstance(samples, (tuple, list, dict))
