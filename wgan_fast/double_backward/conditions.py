"""Which ops keep conditions in their own rows, where no derivative is asked for.

A rule says that of its op for samples, which it must be able to cut. Conditions need less: labels
become one-hot rows, and rows of a table of constants.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.marks import carries_samples

aten = torch.ops.aten


def _other_axis(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
    """Works along the axis that argument 1 or ``dim`` names, which is not the batch's."""
    axis = args[1] if len(args) > 1 else kwargs.get("dim")
    return axis is not None and axis % args[0].dim() != 0


def _placed_along(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
    """(x, dim, index, ...): every row of the index writes into, or reads, its own row of x."""
    x, axis, index = args[:3]
    return axis % x.dim() != 0 and index.shape[0] == x.shape[0]


def _rows_of_a_table(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
    """table[i] or table[i, j] with a row of the result for each of the indices."""
    table, indices = args
    return not carries_samples(table) and all(
        isinstance(index, Tensor)
        and index.dtype not in (torch.bool, torch.uint8)
        and index.dim() == indices[0].dim() > 0  # none is laid along another's samples
        and index.shape[0] == result.shape[0]
        for index in indices
    )


def _selected(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
    table, axis, _ = args
    return axis % table.dim() == 0 and not carries_samples(table)


_ROWS: dict[Any, Callable[[tuple[Any, ...], dict[str, Any], Any], bool]] = {
    aten.scatter.src: _placed_along,
    aten.scatter.value: _placed_along,
    aten.scatter_add.default: _placed_along,
    aten.gather.default: _placed_along,
    aten.index.Tensor: _rows_of_a_table,
    aten.index_select.default: _selected,
    aten.argmax.default: _other_axis,
    aten.argmin.default: _other_axis,
    aten.any.dim: _other_axis,
    aten.all.dim: _other_axis,
    aten.cumsum.default: _other_axis,
    aten.cumprod.default: _other_axis,
}


def keeps_rows(
    op: Any, rule: Any, samples: int, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> bool:
    """Whether an op on conditions leaves each sample's in its own rows of the result."""
    if not samples:
        return True
    of_conditions = _ROWS.get(op)
    if of_conditions is not None:
        return of_conditions(args, kwargs, result)
    return bool(rule.keeps_rows(samples, args, result))
