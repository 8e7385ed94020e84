"""Where a penalty is taken: at the samples, between them or around them, and what is drawn."""

from typing import Any

import torch
from torch import Tensor

from wgan_fast import ops
from wgan_fast.arguments import check_alpha, check_generator, choose_alpha, draw_alpha
from wgan_fast.ops.rows import per_sample
from wgan_fast.penalties import Penalty


def draw(penalty: Penalty, real: Tensor, alpha: Any, generator: Any) -> Tensor | None:
    """What a penalty's points need besides the samples.

    α ``(B,)`` for ``"mix"``, the one given or a fresh one; the points themselves for ``"dragan"``,
    whose noise is drawn before α; None for points that are samples.

    Raises:
        TypeError, ValueError: α or the generator are not as described, or not used.
    """
    if penalty.at == "mix":
        return choose_alpha(alpha, generator, real)
    if penalty.at == "dragan":
        check_generator(generator, real)
        noise = torch.rand(
            real.shape,
            generator=generator,
            device=real.device,
            dtype=ops.accumulation_dtype(real.dtype),
        )
        chosen = draw_alpha(real, generator) if alpha is None else check_alpha(alpha, real)
        return around(real, noise, chosen)
    check_draw(penalty, real, alpha, generator)
    return None


def check_draw(penalty: Penalty, real: Tensor, alpha: Any, generator: Any = None) -> None:
    """The checks on α where nothing is to be drawn, as :func:`draw` makes them."""
    if not penalty.between and (alpha is not None or generator is not None):
        raise ValueError(
            f"alpha, generator: expected None, no point is drawn for at={penalty.at!r}"
        )
    if alpha is not None:
        check_alpha(alpha, real)


def points_of(penalty: Penalty, real: Tensor, fake: Tensor, drawn: Tensor | None) -> list[Tensor]:
    """The penalty's points, in as many batches as it has parts; ``drawn`` by :func:`draw`."""
    if penalty.at == "mix":
        assert drawn is not None
        return [ops.interpolate(real, fake, drawn)]
    if penalty.at == "dragan":
        assert drawn is not None
        return [drawn]
    return {"real": [real], "fake": [fake], "both": [fake, real]}[penalty.at]


def around(real: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """DRAGAN's points x̂ = x + α s u, s half the standard deviation of all of the batch's numbers.

    The standard deviation divides by the count, as NumPy's does in the paper's code.
    """
    kind = ops.accumulation_dtype(real.dtype)
    wide = real.to(kind)
    reach = 0.5 * wide.std(correction=0)
    return (wide + per_sample(alpha.to(kind), real) * reach * noise).to(real.dtype)


def stand_in(penalty: Penalty, real: Tensor) -> Tensor:
    """A tensor shaped as what :func:`draw` draws, to make a graph with."""
    if penalty.at == "dragan":
        return torch.zeros_like(real)
    return torch.zeros(len(real), dtype=ops.accumulation_dtype(real.dtype), device=real.device)
