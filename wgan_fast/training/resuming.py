"""What a run must remember to go on as if it had never stopped, besides its networks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

from wgan_fast import CriticLoop
from wgan_fast.training.errors import CheckpointError


class TrainingState(NamedTuple):
    """All that changes while a run goes on, but for the networks."""

    generator_optimizer: Optimizer
    critic_optimizer: Optimizer
    loop: CriticLoop
    rng: torch.Generator

    def saved(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return {
            "device": self.rng.device.type,
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "loop": self.loop.state_dict(),
            "rng": self.rng.get_state(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """As it was saved.

        Raises:
            CheckpointError: it is from another kind of device, whose random numbers are others, or
                not there.
        """
        if not saved:
            raise CheckpointError("run: its checkpoint has the networks alone, not the training")
        if saved["device"] != self.rng.device.type:
            raise CheckpointError(
                f"run: expected the kind of device that it was trained on, {saved['device']}, to "
                f"draw the same random numbers; got {self.rng.device.type}"
            )
        self.generator_optimizer.load_state_dict(saved["generator_optimizer"])
        self.critic_optimizer.load_state_dict(saved["critic_optimizer"])
        self.loop.load_state_dict(saved["loop"])
        self.rng.set_state(saved["rng"])
