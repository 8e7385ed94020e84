"""Critics that see several samples at a time."""

from typing import Any

from torch import Tensor, nn

from wgan_fast.models._checks import require_positive


class PackedCritic(nn.Module):
    """A critic of packs: ``(B, C, ...)`` to the scores of B/pac packs of samples.

    PacGAN, Lin et al., 2018 (arXiv 1712.04086): the samples of a pack are laid side by side along
    their first axis, as the channels of one image or the numbers of one row. Goes with ``pac=`` of
    :func:`wgan_fast.critic_loss` and :class:`wgan_fast.CriticLoop`.

    Args:
        critic: of samples ``(B/pac, pac·C, ...)``.
        pac: samples to a pack.

    Raises:
        ValueError: ``pac`` is below 1, or B no multiple of it.
        TypeError: ``pac`` is not an int.
    """

    def __init__(self, critic: nn.Module, pac: int) -> None:
        super().__init__()
        require_positive(pac=pac)
        self.critic, self.pac = critic, pac

    def forward(self, samples: Tensor) -> Any:
        """What the critic makes of the packs."""
        batch, channels, *rest = samples.shape
        if batch % self.pac:
            raise ValueError(f"samples: expected a multiple of pac={self.pac}, got {batch}")
        return self.critic(samples.reshape(batch // self.pac, self.pac * channels, *rest))
