"""A training run that a study drives step by step and looks into."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import wgan_fast
from wgan_fast.studies.study import Conditions
from wgan_fast.training.config import TrainConfig
from wgan_fast.training.data import load_data
from wgan_fast.training.metrics import require_finite
from wgan_fast.training.networks import build_networks
from wgan_fast.training.optimizers import build_optimizers
from wgan_fast.training.sampling import draw

# Random streams apart from the one that draws the parameters, and from each other: looking at a
# run changes nothing in it.
_TRAINING_STREAM, _WATCHING_STREAM = 1 << 32, 2 << 32


class TrainingRun:
    """The trainer's data, networks and optimisers under a :class:`wgan_fast.CriticLoop`.

    Args:
        config: of the run; steps, folder and pictures are not looked at.
        device: where.
        networks: takes the config's generator and critic to those that are trained; the config's
            own if left out.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        networks: Callable[[nn.Module, nn.Module], tuple[nn.Module, nn.Module]] | None = None,
    ) -> None:
        dtype = getattr(torch, config.dtype)
        self.config = config
        self.data = load_data(config, device, dtype)
        self.generator, self.critic = build_networks(config, device, dtype)
        if networks is not None:
            self.generator, self.critic = networks(self.generator, self.critic)
        self._rng = torch.Generator(device).manual_seed(config.seed + _TRAINING_STREAM)
        self.watching = torch.Generator(device).manual_seed(config.seed + _WATCHING_STREAM)
        self._loop = wgan_fast.CriticLoop(
            self.generator,
            self.critic,
            *build_optimizers(config, self.generator, self.critic),
            latent_shape=config.latent_dim,
            objective=config.objective,
            n_critic=config.n_critic,
            weight=config.penalty_weight,
            clip_value=config.clip_value,
            rng=self._rng,
        )
        self._stats: wgan_fast.LoopStats | None = None
        self._taken = 0

    def step(self) -> None:
        """``n_critic`` critic steps and a generator step."""
        batches = [
            self.data(self.config.batch_size, self._rng) for _ in range(self.config.n_critic)
        ]
        self._stats = self._loop(torch.stack(batches))
        self._taken += 1

    def losses(self) -> dict[str, float]:
        """The critic's and the generator's loss in the last step.

        Raises:
            NonFiniteLossError: one of them is infinite or NaN.
        """
        if self._stats is None:
            return {}
        losses = {
            "critic_loss": self._stats.critic_loss.item(),
            "generator_loss": self._stats.generator_loss.item(),
        }
        require_finite(losses, self._taken)
        return losses

    def samples(self, count: int) -> tuple[Tensor, Tensor]:
        """``count`` fresh real samples and as many fresh generated ones."""
        real = self.data(count, self.watching)
        z = torch.randn(
            count,
            self.config.latent_dim,
            generator=self.watching,
            device=real.device,
            dtype=real.dtype,
        )
        return real, draw(self.generator, z)

    def scores(self, samples: Tensor) -> Tensor:
        """The critic's scores, in eval mode and without a graph."""
        return draw(self.critic, samples)

    def gradient_norms(self, count: int) -> Tensor:
        """‖∇f‖ at ``count`` fresh interpolates, the critic in eval mode; shape (count,)."""
        real, fake = self.samples(count)
        alpha = torch.rand(count, generator=self.watching, device=real.device, dtype=real.dtype)
        points = wgan_fast.interpolate(real, fake, alpha)
        was_training = self.critic.training
        self.critic.eval()
        norms = wgan_fast.gradient_norms(self.critic, points).detach()
        self.critic.train(was_training)
        return norms


def watched(run: TrainingRun, conditions: Conditions, label: str, count: int) -> Iterator[int]:
    """Takes the study's steps, and stops at ``count`` of them, the losses finite, to look around.

    Raises:
        NonFiniteLossError: at such a moment a loss is infinite or NaN.
    """
    at = set(moments(conditions.steps, count))
    for step in conditions.count(label):
        run.step()
        if step in at:
            run.losses()
            yield step


def moments(steps: int, count: int) -> list[int]:
    """At most ``count`` steps from 1 to ``steps``, evenly spread, the last among them."""
    count = min(count, steps)
    return sorted({-(-steps * number // count) for number in range(1, count + 1)})


def tail(series: list[float], part: float = 0.25) -> list[float]:
    """The last part of a series, at least its last value."""
    return series[-max(1, round(part * len(series))) :]


def late_mean(series: list[float]) -> float:
    """The mean of a series' tail."""
    late = tail(series)
    return sum(late) / len(late)
