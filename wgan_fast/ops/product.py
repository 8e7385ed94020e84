"""``wgan_fast::product``: a product of matrices, by oneDNN's microkernel on a CPU."""

import torch
from torch import Tensor

from wgan_fast.ops import registration


def _plain(a: Tensor, b: Tensor, added: Tensor | None = None) -> Tensor:
    return torch.mm(a, b) if added is None else torch.addmm(added, a, b)


registration.define("product", "(Tensor a, Tensor b, Tensor? added=None) -> Tensor", _plain)


@torch.library.register_fake("wgan_fast::product")
def _fake(a: Tensor, b: Tensor, added: Tensor | None = None) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])
