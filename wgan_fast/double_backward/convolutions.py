"""Which of a CPU's convolutions are computed in another way than the library's.

Each way is a module with three functions of the same arguments: ``suits``, ``convolve`` and
``gradients``.
"""

from types import ModuleType
from typing import Any

from torch import Tensor

from wgan_fast.double_backward import whole_image, winograd


def way_of(shape: Any, weight: Tensor, rest: Any) -> ModuleType | None:
    """The faster way, if there is one.

    Args:
        shape: of the input.
        weight: the kernels, in the layout in which they are used.
        rest: stride, padding, dilation, whether it is transposed, output padding, groups.
    """
    for way in (whole_image, winograd):
        if way.suits(shape, weight, rest):
            return way
    return None
