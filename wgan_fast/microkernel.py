"""Products of matrices in a flat graph, given to ``wgan_fast::product``: oneDNN's microkernel."""

from typing import Any

import torch
from torch.fx import Graph, Node

from wgan_fast.graph_memory import seen
from wgan_fast.ops.registration import EXTENSION_MISSING

aten = torch.ops.aten

PRODUCT = torch.ops.wgan_fast.product.default

# Where the arguments of PyTorch's operators stand in PRODUCT's order.
_PLACES = {aten.mm.default: (0, 1), aten.addmm.default: (1, 2, 0)}

# Of the three sizes, and multiplications in all: smaller products take as long in either.
_THIN, _SMALL = 16, 1 << 19


def take_products(graph: Graph) -> None:
    """Let PRODUCT make those that it is faster with; sums may be rounded otherwise."""
    if EXTENSION_MISSING is not None:
        return
    for node in list(graph.nodes):
        if (factors := _factors_of(node)) is None:
            continue
        with graph.inserting_before(node):
            product = graph.call_function(PRODUCT, tuple(factors))
        product.meta = node.meta
        node.replace_all_uses_with(product)
        graph.erase_node(node)


def _factors_of(node: Node) -> list[Any] | None:
    """PRODUCT's arguments, where it is faster than what a node calls."""
    places = _PLACES.get(node.target)  # type: ignore[call-overload]
    if places is None or node.kwargs or len(node.args) != len(places):
        return None
    factors = [node.args[place] for place in places]
    values = [seen(factor) for factor in factors]
    if any(one is None or one.dtype != torch.float32 or not one.is_cpu for one in values):
        return None
    sizes = *values[0].shape, values[1].shape[1]  # type: ignore[union-attr]
    return factors if min(sizes) >= _THIN and sizes[0] * sizes[1] * sizes[2] >= _SMALL else None
