"""What no recording shows: state that a critic replaces, results that depend on the batch's size.

A recording proves of each op that it keeps samples apart. It does not see Python: ``x / len(x)``,
a constant with a row for every position, a trip through NumPy, ``self.u = new_u``. So the first
merged batch of every shape is compared with a call on a part of it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast.double_backward.choice import modules_of
from wgan_fast.double_backward.errors import CrossSample

Critic = Callable[[Tensor], Any]

# What rounding may move a score by, relative to the largest: a product of other rows is summed in
# another order.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class State:
    """The parameters and buffers of a critic's modules, to see whether a call replaces them."""

    def __init__(self, critic: Critic) -> None:
        self._owners: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._data: list[tuple[Tensor, Tensor]] = []
        for module in modules_of(critic):
            for part in module.modules():
                for owner in (part._parameters, part._buffers):
                    if not isinstance(owner, dict):  # a scripted module's: fixed when it was made
                        continue
                    self._owners.append((owner, dict(owner)))
                    self._data += [(t, t.data) for t in owner.values() if t is not None]

    def replaced(self) -> bool:
        """Whether a name stands for another tensor, or a tensor for other memory."""
        return any(
            len(owner) != len(before) or any(owner.get(name) is not t for name, t in before.items())
            for owner, before in self._owners
        ) or any(tensor.data_ptr() != data.data_ptr() for tensor, data in self._data)

    def lend_copies(self) -> None:
        """Copies in the places of the buffers, to be written into until :meth:`put_back`."""
        for owner, before in self._owners:
            for name, tensor in before.items():
                if tensor is not None and not isinstance(tensor, nn.Parameter):
                    owner[name] = tensor.clone()

    def put_back(self) -> None:
        """As it was, but for numbers that were overwritten in place."""
        for owner, before in self._owners:
            owner.clear()
            owner.update(before)
        for tensor, data in self._data:
            tensor.data = data


def check_part(critic: Critic, part: Tensor, expected: Tensor) -> None:
    """Call the critic on a part of the batch that it gave the ``expected`` scores as a part of.

    Raises:
        CrossSample: the scores are others.
    """
    try:
        with torch.no_grad():
            scores = critic(part)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise CrossSample(f"the critic fails on a part of its batch: {error}") from error
    same = isinstance(scores, Tensor) and scores.shape == expected.shape
    if same:
        off = (scores.double() - expected.double()).abs().max()
        same = bool(off <= ROUNDING[expected.dtype] * expected.double().abs().max())
    if not same:
        raise CrossSample(
            "a sample's score depends on where in a batch, or in how large a one, it is"
        )
