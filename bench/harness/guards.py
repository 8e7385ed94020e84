"""What must be true before a time may be taken."""

from collections import Counter
from collections.abc import Callable, Iterable

import torch

from bench.harness.case import WrongImplementationError


def runs_compiled(*operators: str) -> Callable[[torch.device], None]:
    """The guard that each operator of wgan_fast has its own kernel on the device."""

    def check(device: torch.device) -> None:
        from wgan_fast import ops

        table = ops.status()
        for name in operators:
            runs = table[name][device.type]
            if runs == "plain PyTorch":
                reasons = [
                    f"{piece}: {table[piece]['why']}"
                    for piece in ("extension", "triton")
                    if table[piece]["why"]
                ]
                why = f" ({'; '.join(reasons)})" if reasons else ""
                raise WrongImplementationError(
                    f"operator {name} runs as {runs} on {device.type}: a fallback is not what "
                    f"this case measures{why}"
                )

    return check


def check_calls(side: str, must_call: Iterable[str], dispatched: Counter[str]) -> None:
    """Raises unless every operator of ``must_call`` is among those ``side`` was seen to run."""
    for name in must_call:
        if not dispatched[name]:
            raise WrongImplementationError(
                f"{side} never called {name}, which it is said to run on"
            )
