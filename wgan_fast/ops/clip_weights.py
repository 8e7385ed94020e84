"""``wgan_fast::clip_weights_``: WGAN's weight clipping, all parameters in one call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wgan_fast.ops import registration


def _plain(parameters: Sequence[Tensor], clip_value: float) -> None:
    for parameter in parameters:
        parameter.clamp_(-clip_value, clip_value)


registration.define("clip_weights_", "(Tensor(a!)[] parameters, float clip_value) -> ()", _plain)


@torch.library.register_fake("wgan_fast::clip_weights_")
def _fake(parameters: Sequence[Tensor], clip_value: float) -> None:
    return None


def _count_the_change(keyset: Any, parameters: Sequence[Tensor], clip_value: float) -> None:
    # A graph that saved a parameter must notice that it has changed since, as after clamp_.
    torch.autograd.graph.increment_version(parameters)
    with torch._C._AutoDispatchBelowADInplaceOrView():
        below = keyset & torch._C._after_ADInplaceOrView_keyset
        torch.ops.wgan_fast.clip_weights_.default.redispatch(below, parameters, clip_value)


registration.LIBRARY.impl("clip_weights_", _count_the_change, "ADInplaceOrView", with_keyset=True)


def clip_weights_(parameters: Sequence[Tensor], clip_value: float) -> None:
    """Clamp every element of every tensor to [−clip_value, clip_value], in place.

    Args:
        parameters: tensors of any sizes, floating dtypes and devices; none is copied.
        clip_value: the bound c.

    NaN stays NaN, as with ``torch.clamp``. Not differentiable: call it under ``torch.no_grad()``.
    """
    torch.ops.wgan_fast.clip_weights_(parameters, float(clip_value))
