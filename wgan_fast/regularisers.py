"""Orthogonal regularisation: a pull of the weights towards matrices that keep lengths."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wgan_fast.arguments import check_choice, check_number, parameters_of

FORMS = ("identity", "off-diagonal")


def orthogonal_regularisation(
    module_or_parameters: nn.Module | Tensor | Iterable[Tensor],
    weight: float = 1e-4,
    *,
    form: str = "identity",
) -> Tensor:
    """β Σ_W ‖G − I‖²_F, or β Σ_W ‖G ⊙ (1 − I)‖²_F, with G the inner products of W's filters.

    ``form="identity"`` is orthogonal regularisation (Brock et al., 2017, arXiv 1609.07093), as
    Brock et al., 2019 (arXiv 1809.11096, equation 2) write it: ‖WᵀW − I‖²_F. It pulls the singular
    values of W to 1, so that a layer keeps lengths; with a β large enough that is a soft Lipschitz
    constraint. ``form="off-diagonal"`` is the second paper's own (equation 3), which frees the
    filters' lengths and keeps them apart in direction alone: it bounds nothing.

    The papers' W holds a filter in a column. Here a filter is a row, as in PyTorch: a weight
    ``(out, ...)`` is flattened to ``(out, n)``, and G = W Wᵀ. Where there are more filters than
    numbers in one, ‖G − I‖²_F is at least out − n, and least for orthonormal columns.

    Args:
        module_or_parameters: a module, of which every parameter of rank ≥ 2 is taken (a layer's
            weight, not its bias, nor the gains of a normalisation); or a tensor, or an iterable of
            tensors, of rank ≥ 2. A parametrised weight is taken as the parameters it is made of.
        weight: β; 1e-4 in both papers.
        form: ``"identity"`` or ``"off-diagonal"``.

    Returns:
        A scalar in the weights' dtype, at least in float32; differentiable as often as wanted.

    Raises:
        TypeError: not a module or tensors of floating point numbers.
        ValueError: there is no weight of rank ≥ 2, a tensor has rank below 2, or ``form`` is
            unknown.
    """
    weight = check_number("weight", weight)
    check_choice("form", form, FORMS)
    total: Tensor | None = None
    for filters in _weights(module_or_parameters):
        kind = torch.promote_types(filters.dtype, torch.float32)
        flat = filters.flatten(1).to(kind)
        gram = flat @ flat.mT
        if form == "identity":
            gram = gram - torch.eye(len(gram), dtype=kind, device=gram.device)
        else:
            gram = gram - gram.diagonal().diag()
        term = gram.square().sum()
        total = term if total is None else total + term
    assert total is not None
    return weight * total


def _weights(module_or_parameters: nn.Module | Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = parameters_of(module_or_parameters)
    found = [tensor for tensor in tensors if tensor.dim() >= 2]
    if not found:
        raise ValueError("module_or_parameters: expected a weight of rank ≥ 2, found none")
    if not isinstance(module_or_parameters, nn.Module) and len(found) < len(tensors):
        shape = next(tuple(tensor.shape) for tensor in tensors if tensor.dim() < 2)
        raise ValueError(f"module_or_parameters: expected weights of rank ≥ 2, got one of {shape}")
    return found
