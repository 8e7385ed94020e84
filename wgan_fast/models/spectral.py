"""Spectral normalisation of every linear and convolutional layer of a critic."""

from typing import Literal, get_args

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

Lipschitz = Literal["none", "spectral"]


def constrain(module: nn.Module, lipschitz: Lipschitz) -> None:
    """With ``"spectral"``, W / σ(W) in the place of every weight W, initialised before.

    Miyato et al., 2018 (arXiv 1802.05957): σ(W) is the largest singular value of the weight as a
    matrix (out, everything else), by one power iteration per forward in training mode (so that σ
    lags behind W a little), by what the last one left in eval mode.

    Raises:
        ValueError: another constraint.
    """
    if lipschitz not in get_args(Lipschitz):
        names = ", ".join(map(repr, get_args(Lipschitz)))
        raise ValueError(f"lipschitz: expected one of {names}, got {lipschitz!r}")
    if lipschitz == "spectral":
        for layer in list(module.modules()):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                spectral_norm(layer)
