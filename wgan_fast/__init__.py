"""wgan_fast: fast gradient penalties and Wasserstein critics for PyTorch."""

from wgan_fast import optim, reference
from wgan_fast.adaptive_weight import AdaptiveWeight
from wgan_fast.clipping import clip_weights_
from wgan_fast.critic_loop import CriticLoop
from wgan_fast.critic_objective import CriticStats, critic_loss
from wgan_fast.explaining import explain
from wgan_fast.explanation import Explanation
from wgan_fast.flat_graph import TraceError
from wgan_fast.freezing import FrozenStep, freeze
from wgan_fast.from_output import gradient_penalty_from_output
from wgan_fast.functional import (
    PenaltyStats,
    generator_loss,
    gradient_norms,
    gradient_penalty,
    interpolate,
)
from wgan_fast.loop_stats import LoopStats
from wgan_fast.losses import CriticLoss
from wgan_fast.penalties import Penalty
from wgan_fast.regularisers import orthogonal_regularisation

__version__ = "0.1.0"

__all__ = [
    "AdaptiveWeight",
    "CriticLoop",
    "CriticLoss",
    "CriticStats",
    "Explanation",
    "FrozenStep",
    "LoopStats",
    "Penalty",
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
    "optim",
    "orthogonal_regularisation",
    "reference",
]
