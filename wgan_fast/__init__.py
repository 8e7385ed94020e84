"""wgan_fast: fast gradient penalties and Wasserstein critics for PyTorch."""

from wgan_fast import reference
from wgan_fast.critic_loop import CriticLoop, LoopStats
from wgan_fast.explaining import explain
from wgan_fast.explanation import Explanation
from wgan_fast.flat_graph import TraceError
from wgan_fast.freezing import FrozenStep, freeze
from wgan_fast.from_output import gradient_penalty_from_output
from wgan_fast.functional import (
    CriticStats,
    PenaltyStats,
    clip_weights_,
    critic_loss,
    generator_loss,
    gradient_norms,
    gradient_penalty,
    interpolate,
)
from wgan_fast.losses import CriticLoss

__version__ = "0.1.0"

__all__ = [
    "CriticLoop",
    "CriticLoss",
    "CriticStats",
    "Explanation",
    "FrozenStep",
    "LoopStats",
    "PenaltyStats",
    "TraceError",
    "clip_weights_",
    "critic_loss",
    "explain",
    "freeze",
    "generator_loss",
    "gradient_norms",
    "gradient_penalty",
    "gradient_penalty_from_output",
    "interpolate",
    "reference",
]
