"""How a run is looked at while it goes on: always from the same z and the same real samples.

Watching changes nothing of what is learnt: it has random numbers of its own, and networks are in
eval mode meanwhile.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

import wgan_fast
from wgan_fast.training.choices import PICTURED_IMAGES, PICTURED_POINTS
from wgan_fast.training.config import TrainConfig
from wgan_fast.training.data import DataSet, draw_real
from wgan_fast.training.pictures import save_grid, save_level_sets
from wgan_fast.training.sampling import draw, in_order

# A random stream apart from those that draw the parameters and train them.
_PICTURE_STREAM = 2 << 32


class Watch:
    """A generator and a critic, and what they are looked at with."""

    def __init__(
        self, config: TrainConfig, data: DataSet, generator: nn.Module, critic: nn.Module
    ) -> None:
        self._config = config
        self._generator, self._critic = generator, critic
        parameter = next(generator.parameters())
        device, dtype = parameter.device, parameter.dtype
        rng = torch.Generator(device).manual_seed(config.seed + _PICTURE_STREAM)
        count = PICTURED_POINTS if config.is_2d else PICTURED_IMAGES
        self._z = torch.randn(count, config.latent_dim, generator=rng, device=device, dtype=dtype)
        self._real, self._cond = draw_real(data, config, count, rng)
        self._labels = (in_order(count, device),) if config.conditional else ()

    def gradient_norm(self) -> float:
        """The critic's mean slope between real and fake, for objectives that do not measure it.

        The points are spread evenly over the lines, which takes no random numbers, and in eval mode
        BatchNorm keeps its statistics and leaves the samples apart.
        """
        pac, count = self._config.pac, len(self._real) // self._config.pac
        alpha = torch.linspace(0, 1, count, device=self._real.device, dtype=self._real.dtype)
        fake = draw(self._generator, self._z, *self._cond)
        points = wgan_fast.interpolate(
            self._real[: count * pac], fake[: count * pac], alpha.repeat_interleave(pac)
        )
        cond = tuple(one[: count * pac] for one in self._cond)
        with _evaluating(self._critic):
            norms = wgan_fast.gradient_norms(
                self._critic, points, cond=cond or None, select=self._config.select, pac=pac
            )
        return norms.mean().item()

    def picture(self, path: Path) -> None:
        """A grid of the generator's images, by their labels if they have any.

        Or real and generated points over the critic's level sets: its scores of packs of one point.
        """
        samples = draw(self._generator, self._z, *self._labels)
        if not self._config.is_2d:
            save_grid(samples, path)
            return

        def score(points: Tensor) -> Tensor:
            scores: Tensor = self._critic(points.repeat_interleave(self._config.pac, 0))
            return scores

        with _evaluating(self._critic):
            save_level_sets(score, self._real, samples, path)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode in here: nothing that the module learns from being called is learnt from us."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
