"""Every case, side and device, as parameters of a pytest test."""

import pytest
import torch

from bench.harness.case import Case, Run
from bench.harness.discover import all_cases


def every_side(test):
    """Parametrises ``test(..., case, side, device)``; on a GPU it carries the mark ``cuda``."""
    parameters = [
        pytest.param(
            case,
            side,
            torch.device(device),
            id=f"{case.name}-{side}-{device}",
            marks=[pytest.mark.cuda] if device == "cuda" else [],
        )
        for case in all_cases()
        for side in case.sides
        for device in case.devices
    ]
    return pytest.mark.parametrize(("case", "side", "device"), parameters)(test)


def started(case: Case, side: str, device: torch.device) -> Run:
    """As :meth:`Case.start`; a peer that cannot run here skips the test with its reason."""
    try:
        return case.start(side, device)
    except Exception as error:
        if side not in case.peers:
            raise
        pytest.skip(f"{side}: {type(error).__name__}: {error}")
