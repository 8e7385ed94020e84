"""``wgan_fast::normalisation_*``: first and second derivatives of layer, group and RMS norm.

Over a row, a group that shares statistics, with m(·) the mean over the row, r the inverse
deviation, x̂ = r (x − m(x)) and P(u) = u − m(u) − x̂ m(x̂ u):

    y = γ x̂ + β,   t_y = γ r P(t),   x̄ = r P(γ Δ),   γ̄ = Σ Δ x̂,   β̄ = Σ Δ,

and with d = γ Δ the second-order terms of ⟨d, r P(t)⟩ are

    x̄ = −r² [ m(x̂ t) P(d) + m(x̂ d) P(t) + x̂ (m(d t) − m(d) m(t) − m(x̂ d) m(x̂ t)) ],
    γ̄ = Σ Δ r P(t).

RMS norm is the same with m(x), m(u), m(d) and m(t) left out: ``mean`` is None.

``x`` and whatever has its shape are rows, ``(R, L)``, float32 or float64; ``mean`` and ``inverse``
have R numbers. Row i belongs to group i mod ``groups``, which has its own elements of γ, one for
every ``repeat`` columns: layer norm has one group and ``repeat`` 1, group norm ``repeat`` H·W. γ
and what is summed into its shape are ``(groups · L / repeat,)``.

The operators have no derivatives of their own: they are what derivatives are made of.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wgan_fast.ops import registration

_ROWS = "Tensor x, Tensor? mean, Tensor inverse"
_GAMMA = "Tensor? gamma, int groups, int repeat"


def _normal(x: Tensor, mean: Tensor | None, inverse: Tensor) -> Tensor:
    centred = x if mean is None else x - mean.view(-1, 1)
    return centred * inverse.view(-1, 1)


def _spread(gamma: Tensor | None, x: Tensor, groups: int, repeat: int) -> Tensor | float:
    """γ for every number of the rows."""
    if gamma is None:
        return 1.0
    of_group = gamma.view(groups, -1, 1).expand(-1, -1, repeat).reshape(1, groups, -1)
    return of_group.expand(x.shape[0] // groups, -1, -1).reshape(x.shape)


def _gathered(product: Tensor, groups: int, repeat: int) -> Tensor:
    """The sum over everything that shares an element of γ."""
    return product.view(-1, groups, product.shape[1] // repeat, repeat).sum((0, 3)).flatten()


def _mean(product: Tensor) -> Tensor:
    return product.mean(1, keepdim=True)


def _project(u: Tensor, normal: Tensor, centred: bool) -> Tensor:
    result = u - normal * _mean(normal * u)
    return result - _mean(u) if centred else result


def _vjp(
    delta: Tensor,
    x: Tensor,
    mean: Tensor | None,
    inverse: Tensor,
    gamma: Tensor | None,
    groups: int,
    repeat: int,
) -> Tensor:
    d = delta * _spread(gamma, x, groups, repeat)
    return inverse.view(-1, 1) * _project(d, _normal(x, mean, inverse), mean is not None)


def _jvp(
    tangent: Tensor,
    x: Tensor,
    mean: Tensor | None,
    inverse: Tensor,
    gamma: Tensor | None,
    groups: int,
    repeat: int,
) -> Tensor:
    projected = _project(tangent, _normal(x, mean, inverse), mean is not None)
    return inverse.view(-1, 1) * projected * _spread(gamma, x, groups, repeat)


def _second(
    delta: Tensor,
    tangent: Tensor,
    x: Tensor,
    mean: Tensor | None,
    inverse: Tensor,
    gamma: Tensor | None,
    groups: int,
    repeat: int,
) -> tuple[Tensor, Tensor]:
    normal, centred = _normal(x, mean, inverse), mean is not None
    r = inverse.view(-1, 1)
    d, t = delta * _spread(gamma, x, groups, repeat), tangent
    d_along, t_along = _mean(normal * d), _mean(normal * t)
    of_t = _project(t, normal, centred)
    curl = _mean(d * t) - d_along * t_along
    if centred:
        curl = curl - _mean(d) * _mean(t)
    bar = t_along * _project(d, normal, centred) + d_along * of_t + normal * curl
    return -r * r * bar, _gathered(delta * (r * of_t), groups, repeat)


def _parameters(
    delta: Tensor, x: Tensor, mean: Tensor | None, inverse: Tensor, groups: int, repeat: int
) -> tuple[Tensor, Tensor]:
    along = delta * _normal(x, mean, inverse)
    return _gathered(along, groups, repeat), _gathered(delta, groups, repeat)


registration.define("normalisation_vjp", f"(Tensor delta, {_ROWS}, {_GAMMA}) -> Tensor", _vjp)
registration.define("normalisation_jvp", f"(Tensor tangent, {_ROWS}, {_GAMMA}) -> Tensor", _jvp)
registration.define(
    "normalisation_second",
    f"(Tensor delta, Tensor tangent, {_ROWS}, {_GAMMA}) -> (Tensor, Tensor)",
    _second,
)
registration.define(
    "normalisation_parameters",
    f"(Tensor delta, {_ROWS}, int groups, int repeat) -> (Tensor, Tensor)",
    _parameters,
)


def _check(
    x: Tensor, mean: Tensor | None, inverse: Tensor, gamma: Tensor | None, groups: int, repeat: int,
    **like_x: Tensor,
) -> None:  # fmt: skip
    """What keeps a kernel from reading outside of a tensor."""
    if x.dim() != 2 or not x.is_contiguous():
        raise RuntimeError(f"normalisation: x must be contiguous rows, got {tuple(x.shape)}")
    rows, columns = x.shape
    if groups < 1 or repeat < 1 or columns % repeat or rows % groups:
        raise RuntimeError(
            f"normalisation: {tuple(x.shape)} has no {groups} groups or runs of {repeat}"
        )
    for name, tensor in like_x.items():
        if (tensor.shape, tensor.dtype, tensor.device) != (x.shape, x.dtype, x.device):
            raise RuntimeError(
                f"normalisation: {name} must have the shape, dtype and device of x, "
                f"got {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
            )
    small = {"inverse": (inverse, rows), "mean": (mean, rows)}
    small["gamma"] = gamma, groups * (columns // repeat)
    for name, (numbers, count) in small.items():
        if numbers is not None and (
            numbers.numel() != count
            or not numbers.is_contiguous()
            or (numbers.dtype, numbers.device) != (x.dtype, x.device)
        ):
            raise RuntimeError(
                f"normalisation: {name} must be {count} contiguous {x.dtype}, "
                f"got {tuple(numbers.shape)} {numbers.dtype} on {numbers.device}"
            )


def _triton_projected(before: bool) -> Callable[..., Tensor]:
    def launch(
        u: Tensor,
        x: Tensor,
        mean: Tensor | None,
        inverse: Tensor,
        gamma: Tensor | None,
        groups: int,
        repeat: int,
    ) -> Tensor:
        from wgan_fast.kernels.normalisation import normalisation_projected_rows

        name = "delta" if before else "tangent"
        _check(x, mean, inverse, gamma, groups, repeat, **{name: u})
        result = torch.empty_like(x)
        normalisation_projected_rows(
            u.contiguous(), x, mean, inverse, gamma, result, groups, repeat, before
        )
        return result

    return launch


def _triton_second(
    delta: Tensor,
    tangent: Tensor,
    x: Tensor,
    mean: Tensor | None,
    inverse: Tensor,
    gamma: Tensor | None,
    groups: int,
    repeat: int,
) -> tuple[Tensor, Tensor]:
    from wgan_fast.kernels.normalisation_second import normalisation_second_rows

    _check(x, mean, inverse, gamma, groups, repeat, delta=delta, tangent=tangent)
    result = torch.empty_like(x)
    gamma_bar = normalisation_second_rows(
        delta.contiguous(), tangent.contiguous(), x, mean, inverse, gamma, result, groups, repeat
    )
    return result, gamma_bar


def _triton_parameters(
    delta: Tensor, x: Tensor, mean: Tensor | None, inverse: Tensor, groups: int, repeat: int
) -> tuple[Tensor, Tensor]:
    from wgan_fast.kernels.normalisation_parameters import normalisation_parameters_rows

    _check(x, mean, inverse, None, groups, repeat, delta=delta)
    return normalisation_parameters_rows(delta.contiguous(), x, mean, inverse, groups, repeat)


registration.register_triton("normalisation_vjp", _triton_projected(before=True))
registration.register_triton("normalisation_jvp", _triton_projected(before=False))
registration.register_triton("normalisation_second", _triton_second)
registration.register_triton("normalisation_parameters", _triton_parameters)


@torch.library.register_fake("wgan_fast::normalisation_vjp")
@torch.library.register_fake("wgan_fast::normalisation_jvp")
def _fake(u: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


def _two_sums(x: Tensor, groups: int, repeat: int) -> tuple[Tensor, Tensor]:
    elements = groups * (x.shape[1] // repeat)
    return x.new_empty(elements), x.new_empty(elements)


@torch.library.register_fake("wgan_fast::normalisation_second")
def _fake_second(
    delta: Tensor, tangent: Tensor, x: Tensor, mean: Any, inverse: Any, gamma: Any,
    groups: int, repeat: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(x), _two_sums(x, groups, repeat)[0]


@torch.library.register_fake("wgan_fast::normalisation_parameters")
def _fake_parameters(
    delta: Tensor, x: Tensor, mean: Any, inverse: Any, groups: int, repeat: int
) -> tuple[Tensor, Tensor]:
    return _two_sums(x, groups, repeat)
