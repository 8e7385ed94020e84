"""Every setting of a training run, in one frozen dataclass that is also the command line.

A setting left out takes its value from the paper of the chosen objective, or of the method that
bounds the critic's slope. The tables are :func:`paper_settings` and
:func:`wgan_fast.training.lipschitz.method_settings`.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import torch
import tyro

from wgan_fast.training.checks import (
    REAL_NUMBERS,
    real_number,
    require_choices,
    require_ranges,
    require_sense,
)
from wgan_fast.training.choices import Backend, Data, Loop, Normalisation, Pairs, Scores
from wgan_fast.training.lipschitz import (
    WITHOUT_PENALTY,
    Lipschitz,
    Objective,
    method_of,
    method_settings,
    objective_of,
)

T = TypeVar("T")

if TYPE_CHECKING:
    # None never outlives __post_init__, so whoever reads such a field finds a T.
    Default = Annotated[T, "filled in at construction"]
else:
    # The help text of such a setting names its defaults, so tyro need not say "default: None".
    Default = Annotated[T | None, tyro.conf.arg(help_behavior_hint="")]
LEFT_OUT: Any = None


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run.

    Settings whose default depends on others hold their final value from construction on. To change
    the objective, construct anew: ``dataclasses.replace`` would keep the former paper's values.

    Raises:
        ConfigError: a setting is out of range or does not go with another one.
    """

    objective: Default[Objective] = LEFT_OUT
    """dcgan: non-saturating cross-entropy. wgan: the Wasserstein loss, clipped weights. wgan-gp:
    the same loss with a gradient penalty. Default: wgan-gp, or what --lipschitz goes with."""
    lipschitz: Default[Lipschitz] = LEFT_OUT
    """What bounds the critic's slope. clip: weight clipping. gp to banach-inf: a gradient penalty.
    adaptive: that of gp, with a λ that follows the mean gradient norm.
    sn: spectral normalisation. ortho: orthogonal regularisation. groupsort: a critic that is
    1-Lipschitz by construction. Default: none (dcgan), clip (wgan), gp (wgan-gp)."""
    data: Data = "digits"
    """digits: 1,797 real scanned digits. The others are the WGAN-GP paper's 2-D toys."""
    steps: int = 5000
    """Generator steps."""
    image_size: Literal[16, 28, 32, 64] = 16
    """Pixels per side that the digits (8×8 as they come) are enlarged to."""

    batch_size: Default[int] = LEFT_OUT
    """Default: 64 (wgan, wgan-gp), 128 (dcgan), 256 (2-D data)."""
    n_critic: Default[int] = LEFT_OUT
    """Critic steps per generator step. Default: 5 (wgan, wgan-gp), 1 (dcgan)."""
    critic_learning_rate: Default[float] = LEFT_OUT
    """Default: 2e-4 (dcgan, sn), 5e-5 (wgan), 1e-4 (wgan-gp, ortho), 1e-3 (groupsort)."""
    generator_learning_rate: Default[float] = LEFT_OUT
    """Default: as the critic's default; 1e-4 (groupsort)."""
    beta1: Default[float] = LEFT_OUT
    """Adam's β₁; RMSprop, with clip, has none. Default: 0.5 (dcgan, 2-D data), 0 (the others)."""
    beta2: Default[float] = LEFT_OUT
    """Adam's β₂; RMSprop, with clip, has none. Default: 0.999 (dcgan), 0.9 (the others)."""
    penalty_weight: Default[float] = LEFT_OUT
    """λ of the gradient penalty, or β of ortho. Default: each paper's, such as 10 (gp), 5 (r1); on
    2-D data 0.1 (gp and what is close to it); 10 to begin with (adaptive); 1 (ortho)."""
    penalty_every: int = 1
    """Lazy regularisation: the penalty in every so-manieth critic step alone, times so many."""
    drift: float = 0.0
    """ε of ProGAN's drift term ε E f(real)² in the critic's loss; 0.001 in its paper."""
    clip_value: Default[float] = LEFT_OUT
    """c of weight clipping. Default: 0.01."""
    conditional: tyro.conf.FlagCreatePairsOff[bool] = False
    """Digits by their labels, which generator and critic take with z and with the images."""
    inpaint: tyro.conf.FlagCreatePairsOff[bool] = False
    """The generator fills a random hole of a digit, a square of half its side, and the penalty's
    gradient counts in the hole alone."""
    pairs: Pairs = "none"
    """joint, separate: a sample is a digit together with its label, a row of ten numbers; both are
    generated, and the critic takes both. One gradient norm over the two, or a penalty for each."""
    pac: int = 1
    """Samples that the critic sees at a time and makes one score of (PacGAN). Divides the batch."""
    critic_scores: Scores = "one"
    """Of an image. patch: a map of scores, each of a part of it (PatchGAN). multi-scale: two maps,
    of the image and of its half resolution (pix2pixHD)."""
    backend: Backend = "auto"
    """How a penalty gets its gradient."""
    loop: Loop = "auto"
    """captured: steps as flat graphs, on a GPU the whole iteration as a CUDA graph. compiled: these
    graphs by Inductor, after seconds of compilation. eager: no graphs. auto: captured, eager where
    that cannot be."""

    latent_dim: Default[int] = LEFT_OUT
    """Size of z. Default: 100 (dcgan, wgan), 128 (wgan-gp), 2 (2-D data)."""
    channels: int = 64
    """Feature maps of the widest-resolution layer of the image models."""
    hidden_dim: int = 512
    """Width of the models for 2-D data (three hidden layers)."""
    normalisation: Default[Normalisation] = LEFT_OUT
    """Of the image critic. Default: batch (dcgan without a method, or with ortho), else none."""

    seed: int = 0
    """One seed, one result: the same machine and device give the same parameters."""
    device: str = "auto"
    """auto (cuda where there is one, else cpu), cpu, cuda, cuda:1, ..."""
    dtype: Literal["float32", "float64"] = "float32"
    """Of data, parameters and losses."""

    threads: Default[int] = LEFT_OUT
    """CPU threads. Default: torch's choice. Small models on a busy CPU train fastest with 1, since
    threads wait for each other at every operation."""

    run_folder: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Where everything is written. Default: runs/OBJECTIVE-DATA, numbered if that is taken."""
    log_every: int = 50
    """Generator steps between two lines of metrics."""
    picture_every: int = 1000
    """Generator steps between two pictures, each with a checkpoint."""

    def __post_init__(self) -> None:
        require_choices(self)
        if self.objective is None:
            object.__setattr__(self, "objective", objective_of(self.lipschitz))
        if self.lipschitz is None:
            object.__setattr__(self, "lipschitz", method_of(self.objective))
        for name, value in paper_settings(self.objective, self.data, self.lipschitz).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.threads is None:
            object.__setattr__(self, "threads", torch.get_num_threads())
        for name in REAL_NUMBERS:
            object.__setattr__(self, name, real_number(name, getattr(self, name)))
        if isinstance(self.run_folder, str):
            object.__setattr__(self, "run_folder", Path(self.run_folder))
        require_ranges(self)
        require_sense(self)

    @property
    def is_2d(self) -> bool:
        """Whether the data are points in the plane, not images."""
        return self.data != "digits"

    @property
    def penalty(self) -> str | None:
        """The gradient penalty's name, None where the method is another."""
        return None if self.lipschitz in WITHOUT_PENALTY else self.lipschitz

    @property
    def clips(self) -> bool:
        """Whether the critic's weights are clipped."""
        return self.lipschitz == "clip"

    @property
    def takes_rmsprop(self) -> bool:
        """Whether the optimiser is WGAN's: with clipped weights, or without any method at all."""
        return self.objective == "wgan" and self.lipschitz in ("clip", "none")

    @property
    def inputs(self) -> str:
        """How the gradients of a sample's tensors are measured."""
        return "separate" if self.pairs == "separate" else "joint"

    @property
    def select(self) -> Any:
        """Which part of the critic's output is its score: of a list of scales all, or all of it."""
        return list if self.critic_scores == "multi-scale" else None

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON's types; ``TrainConfig(**config.to_json())`` is the same config."""
        folder = None if self.run_folder is None else str(self.run_folder)
        return {**dataclasses.asdict(self), "run_folder": folder}


def paper_settings(
    objective: Objective, data: Data, lipschitz: Lipschitz | None = None
) -> dict[str, Any]:
    """The settings of an objective's paper, and of a method's, the objective's own if left out.

    - dcgan: Radford et al. 2016, arXiv 1511.06434.
    - wgan: Arjovsky et al. 2017, arXiv 1701.07875, algorithm 1. Its RMSprop has no β.
    - wgan-gp: Gulrajani et al. 2017, arXiv 1704.00028, algorithm 1, z as in the paper's code. For
      2-D data that code takes λ = 0.1, β = (0.5, 0.9), z of size 2 and batches of 256.

    A setting without meaning for the objective has a value all the same, and is not read.
    """
    settings: dict[str, Any] = {
        "dcgan": {"batch_size": 128, "n_critic": 1, "critic_learning_rate": 2e-4},
        "wgan": {"batch_size": 64, "n_critic": 5, "critic_learning_rate": 5e-5},
        "wgan-gp": {"batch_size": 64, "n_critic": 5, "critic_learning_rate": 1e-4},
    }[objective]
    settings["generator_learning_rate"] = settings["critic_learning_rate"]
    settings["beta1"], settings["beta2"] = (0.0, 0.9) if objective == "wgan-gp" else (0.5, 0.999)
    settings["penalty_weight"] = 0.0
    settings["clip_value"] = 0.01
    settings["latent_dim"] = 128 if objective == "wgan-gp" else 100
    settings["normalisation"] = "batch" if objective == "dcgan" else "none"
    if data != "digits":
        settings.update(batch_size=256, latent_dim=2, beta1=0.5)
    method = method_of(objective) if lipschitz is None else lipschitz
    return settings | method_settings(objective, method, is_2d=data != "digits")
