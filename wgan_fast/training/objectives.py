"""What differs between the objectives: two losses, one optimiser, one constraint.

The trainer does the rest. Every loss function returns the loss to call ``backward`` on; the
critic's returns the quantities worth logging as well, as detached 0-dim tensors, so that nothing
waits for the device.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

import wgan_fast
from wgan_fast.training.config import TrainConfig


class Objective(Protocol):
    """One way of training a critic against a generator."""

    def optimizer(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """The paper's optimiser, for either side."""
        ...

    def critic_loss(
        self, critic: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss, and what to log of it."""
        ...

    def constrain_(self, critic: nn.Module) -> None:
        """What happens to the critic's parameters after each of its optimiser steps."""
        ...

    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        """The generator's loss; ``fake`` carries the generator's graph."""
        ...


class WGANGP:
    """mean f(fake) − mean f(real) + λ · mean (‖∇f(x̂)‖ − 1)² (Gulrajani 2017, 1704.00028)."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def optimizer(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """Adam."""
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(parameters, lr=learning_rate, betas=betas)

    def critic_loss(
        self, critic: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss with its penalty at points drawn between real and fake."""
        loss, stats = wgan_fast.critic_loss(
            critic,
            real,
            fake,
            weight=self.config.penalty_weight,
            generator=rng,
            return_stats=True,
            backend=self.config.backend,
        )
        return loss, {
            "critic_loss": stats.loss,
            "wasserstein": stats.wasserstein,
            "penalty": stats.penalty,
            "gradient_norm": stats.gradient_norm,
            "real_score": stats.real_score,
            "fake_score": stats.fake_score,
        }

    def constrain_(self, critic: nn.Module) -> None:
        """Nothing: the penalty is the constraint."""

    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        """−mean f(fake)."""
        return wgan_fast.generator_loss(critic, fake)


class WGAN:
    """mean f(fake) − mean f(real), f's weights kept in [−c, c] (Arjovsky 2017, 1701.07875)."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def optimizer(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """RMSprop without momentum: the critic's loss is not stationary, and momentum hurts."""
        return torch.optim.RMSprop(parameters, lr=learning_rate)

    def critic_loss(
        self, critic: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The negative Wasserstein estimate, up to f's Lipschitz constant."""
        real_score, fake_score = critic(real).mean(), critic(fake).mean()
        loss = fake_score - real_score
        return loss, {
            "critic_loss": loss.detach(),
            "wasserstein": -loss.detach(),
            "real_score": real_score.detach(),
            "fake_score": fake_score.detach(),
        }

    def constrain_(self, critic: nn.Module) -> None:
        """Clamps every parameter to [−c, c]."""
        wgan_fast.clip_weights_(critic, self.config.clip_value)

    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        """−mean f(fake)."""
        return wgan_fast.generator_loss(critic, fake)


class DCGAN:
    """Cross-entropy of real against fake, the generator's one non-saturating (1406.2661).

    The critic's score is the logit of "this is real". There is no Wasserstein estimate.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def optimizer(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """Adam with DCGAN's β (Radford 2016, 1511.06434)."""
        betas = (self.config.beta1, self.config.beta2)
        return torch.optim.Adam(parameters, lr=learning_rate, betas=betas)

    def critic_loss(
        self, critic: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """−mean log σ(f(real)) − mean log(1 − σ(f(fake)))."""
        real_score, fake_score = critic(real), critic(fake)
        loss = -F.logsigmoid(real_score).mean() - F.logsigmoid(-fake_score).mean()
        return loss, {
            "critic_loss": loss.detach(),
            "real_score": real_score.detach().mean(),
            "fake_score": fake_score.detach().mean(),
        }

    def constrain_(self, critic: nn.Module) -> None:
        """Nothing."""

    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        """−mean log σ(f(fake))."""
        return -F.logsigmoid(critic(fake)).mean()


def build_objective(config: TrainConfig) -> Objective:
    """The objective that the config names."""
    objectives: dict[str, Callable[[TrainConfig], Objective]]
    objectives = {"dcgan": DCGAN, "wgan": WGAN, "wgan-gp": WGANGP}
    return objectives[config.objective](config)
