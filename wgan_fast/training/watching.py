"""How a run is looked at while it goes on: always from the same z and the same real samples.

Watching changes nothing of what is learnt: it has random numbers of its own, and networks are in
eval mode meanwhile.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import wgan_fast
from wgan_fast.training.choices import PICTURED_IMAGES, PICTURED_POINTS
from wgan_fast.training.config import TrainConfig
from wgan_fast.training.data import DataSet, Drawn, draw_real
from wgan_fast.training.pictures import save_grid, save_level_sets
from wgan_fast.training.sampling import draw, in_order, shown

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
        self._drawn = self._pictured = draw_real(data, config, count, rng)
        if config.conditional:
            self._pictured = Drawn(None, (in_order(count, device),))

    def gradient_norm(self) -> float:
        """The critic's mean slope between real and fake, for objectives that do not measure it.

        The points are spread evenly over the lines, which takes no random numbers, and in eval mode
        BatchNorm keeps its statistics and leaves the samples apart.
        """
        pac, (real, cond, mask) = self._config.pac, self._drawn
        fake = draw(self._generator, self._z, *cond)
        count = len(self._z) // pac
        alpha = torch.linspace(0, 1, count, device=self._z.device, dtype=self._z.dtype)
        alpha, whole = alpha.repeat_interleave(pac), slice(count * pac)
        points = tree_map(
            lambda one, other: wgan_fast.interpolate(one[whole], other[whole], alpha), real, fake
        )
        with _evaluating(self._critic):
            norms = wgan_fast.gradient_norms(
                self._critic, points, cond=tuple(one[whole] for one in cond) or None,
                select=self._config.select, pac=pac, mask=None if mask is None else mask[whole],
            )  # fmt: skip
        return norms.mean().item()

    def picture(self, path: Path) -> None:
        """A grid of the generator's images, by their labels if they have any, or of filled holes.

        Or real and generated points over the critic's level sets: its scores of packs of one point.
        """
        samples = draw(self._generator, self._z, *self._pictured.cond)
        if not self._config.is_2d:
            save_grid(shown(self._config, samples, self._pictured), path)
            return

        def score(points: Tensor) -> Tensor:
            scores: Tensor = self._critic(points.repeat_interleave(self._config.pac, 0))
            return scores

        with _evaluating(self._critic):
            save_level_sets(score, self._drawn.real, samples, path)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode in here: nothing that the module learns from being called is learnt from us."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
