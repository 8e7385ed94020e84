"""``gradient_penalty_from_output``: the penalty of a forward pass that was made already."""

from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from wgan_fast.arguments import check_choice, check_samples, describe
from wgan_fast.critic_shapes import check_pac
from wgan_fast.functional import REDUCTIONS, PenaltyStats
from wgan_fast.penalties import Penalty, check_factor, check_maximum, check_penalty, weighted
from wgan_fast.sample_forms import Form, check_several, is_several


# fmt: off
@overload
def gradient_penalty_from_output(
    inputs: Any, output: Tensor, *, penalty: str | Penalty | None = ...,
    weight: float | Tensor = ..., target: float | None = ..., sided: str | None = ...,
    pac: int = ..., mask: Any = ..., reduction: str = ..., return_stats: Literal[False] = ...,
) -> Tensor: ...
@overload
def gradient_penalty_from_output(
    inputs: Any, output: Tensor, *, penalty: str | Penalty | None = ...,
    weight: float | Tensor = ..., target: float | None = ..., sided: str | None = ...,
    pac: int = ..., mask: Any = ..., reduction: str = ..., return_stats: Literal[True],
) -> tuple[Tensor, PenaltyStats]: ...
# fmt: on
def gradient_penalty_from_output(
    inputs: Any,
    output: Tensor,
    *,
    penalty: str | Penalty | None = None,
    weight: float | Tensor = 1.0,
    target: float | None = None,
    sided: str | None = None,
    pac: int = 1,
    mask: Any = None,
    reduction: str = "mean",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, PenaltyStats]:
    """P = (1/B) Σ φ(‖∂sᵢ/∂xᵢ‖₂) from scores s and the inputs x they were computed from.

    φ as in :func:`gradient_penalty`, Gulrajani et al., 2017 (arXiv 1704.00028). For loops that hold
    a forward pass already: R1 on the scores that the loss uses, a critic that is called in some way
    of its own. By autograd's double backward alone: where the critic can be called again,
    :func:`gradient_penalty` and :func:`critic_loss` are faster.

    Args:
        inputs: ``(B, ...)`` of rank ≥ 2, floating point, requiring gradients, the very tensor that
            the critic was called with; or a tuple, list or dict of several, whose gradients have
            one norm together.
        output: scores of ``inputs`` with their graph; the first size is B, further axes are summed
            per sample. The graph is kept, for the loss of the same scores.
        weight: λ, multiplies the result. A number or a 0-dim tensor.
        penalty: a name or a :class:`Penalty`, as for :func:`gradient_penalty`, for its φ and its
            norm: ``inputs`` are the points, whatever its ``at``, and ``weight`` is λ.
        target: the norm at which the penalty is zero; 1 if left out. Not with ``penalty``.
        sided: ``"two"``, as if left out, or ``"one"``. Not with ``penalty``.
        pac: samples to a pack; ``output`` then has B/pac scores.
        mask: what the gradient is multiplied by before its norm is taken.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, over the batch. ``"mean"`` alone where the
            penalty is a maximum.
        return_stats: return ``(penalty, PenaltyStats)``.

    Returns:
        A scalar (``(B,)`` for ``reduction="none"``), float32, or float64 for float64 inputs.
        Differentiable in all that ``output`` was computed from, as often as the critic allows, less
        the one time spent here; under ``torch.no_grad()`` the value alone.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: ``inputs`` do not require gradients, ``output`` has no graph or none that leads
            to them, or there is not one score per sample or pack.
    """
    weight = check_factor(weight)
    chosen = check_penalty(penalty, target=target, sided=sided)
    check_choice("reduction", reduction, REDUCTIONS)
    check_maximum(chosen, None, reduction)
    if is_several(inputs):
        check_several("inputs", inputs)
    else:
        check_samples("inputs", inputs)
    form = Form(inputs, 1)
    form = Form(inputs, check_pac(pac, form.batch))
    gradient = form.packed(_gradients(inputs, output, form.batch // pac))
    of_shape = None if mask is None else form.packed_mask(mask).to(gradient.dtype)
    norms, penalties, _ = chosen.of(gradient, mask=of_shape)
    result = penalties
    if reduction != "none":
        result = penalties.mean() if reduction == "mean" else penalties.sum()
    result = weighted(result, weight)
    if not return_stats:
        return result
    return result, PenaltyStats(norms.detach(), penalties.detach().mean())


def _gradients(inputs: Any, output: Any, scores: int) -> Any:
    """Those of the summed output in each of the inputs, in the inputs' structure."""
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise TypeError(f"output: expected a floating point tensor, got {describe(output)}")
    if not output.dim() or output.shape[0] != scores:
        raise ValueError(
            f"output: expected the scores of inputs, first size {scores}, got {describe(output)}; "
            "give the scores themselves, not their mean"
        )
    found, tree = tree_flatten_with_path(inputs)
    for path, tensor in found:
        if not tensor.requires_grad:
            part = f"inputs{keystr(path)}"
            raise ValueError(
                f"{part}: expected a tensor that requires gradients, got one that does not; call "
                f"{part}.requires_grad_() before the critic"
            )
    if not output.requires_grad:
        raise ValueError(
            "output: expected scores with the graph that made them, got a tensor without one: the "
            "critic ran under no_grad, or its scores were detached"
        )
    gradients = torch.autograd.grad(
        output,
        [tensor for _, tensor in found],
        torch.ones_like(output),
        create_graph=torch.is_grad_enabled(),
        retain_graph=True,
        allow_unused=True,
    )
    for (path, _), gradient in zip(found, gradients, strict=True):
        if gradient is None:
            part = f"inputs{keystr(path)}"
            raise ValueError(
                f"output: expected scores that depend on {part}, got some that do not; give the "
                "very tensor that the critic was called with, not a copy or a slice of it"
            )
    return tree_unflatten(list(gradients), tree)
