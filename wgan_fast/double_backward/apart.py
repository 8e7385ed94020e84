"""Whether samples may share a batch: then several calls of a module can be one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from wgan_fast.double_backward.choice import Memory, plain_facts
from wgan_fast.double_backward.errors import CrossSample, Unsupported
from wgan_fast.double_backward.independence import State, check_part
from wgan_fast.double_backward.record import record
from wgan_fast.double_backward.rules import rule_of

_known = Memory()
_proofs = Memory()
# A module that counts its calls, say, would be asked again in each.
_PROOFS = 16


def keeps_apart(module: Callable[[Tensor], Any], parts: Sequence[Tensor]) -> bool:
    """Whether ``module`` is proven to give, on the parts as one batch, what it gives on each.

    False for batch statistics, state, and random numbers, which one batch draws in another order.
    Asked once for parts of one shape, and again where a flag or a number has changed that the
    module, or what it is called with, holds; nothing that the module does meanwhile stays.
    """
    about = len(parts), parts[0].shape, parts[0].dtype, *plain_facts(module)
    known = _known.get(module, *about)
    if known is None:
        proofs = _proofs.get(module) or 0
        if proofs >= _PROOFS:
            return False
        known = _proven(module, parts)
        _known.set(module, known, *about)
        _proofs.set(module, proofs + 1)
    return bool(known)


def _proven(module: Callable[[Tensor], Any], parts: Sequence[Tensor]) -> bool:
    devices = [parts[0].device] if parts[0].device.type == "cuda" else []
    state = State(module)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            recording = record(module, torch.cat(list(parts)), rule_of, rows_apart=True)
            results = recording.scores
            # What Python reads of conditions may send it another way in the next call.
            unknown = recording.random or recording.reads
            if unknown or not isinstance(results, Tensor) or not results.dim():
                return False
            if results.shape[0] != len(parts) * parts[0].shape[0]:
                return False
            for part, found in list(zip(parts, results.chunk(len(parts)), strict=True))[1:]:
                check_part(module, part, found)
            return not state.replaced()
    except (CrossSample, Unsupported):
        return False
    finally:
        state.put_back()
