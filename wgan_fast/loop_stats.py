"""What an iteration of a training loop saw."""

from typing import NamedTuple

from torch import Tensor


class LoopStats(NamedTuple):
    """Means over an iteration's critic steps; 0-dim tensors on the device, nothing waits for it."""

    critic_loss: Tensor
    wasserstein: Tensor | None
    """E f(real) − E f(fake); None for dcgan, whose scores are logits."""
    penalty: Tensor | None
    """λ not applied, of the penalised steps; None if there were none."""
    gradient_norm: Tensor | None
    """(1/B) Σ ‖∇f(x̂ᵢ)‖, of the penalised steps; None if there were none."""
    real_score: Tensor
    fake_score: Tensor
    generator_loss: Tensor
    """Of the one generator step."""
    weight: Tensor | None = None
    """λ, where it is an adaptive one."""


def stats_of(seen: Tensor, due: tuple[bool, ...], objective: str) -> LoopStats:
    """From means over all steps, with zeros where ``due`` says that there was no penalty."""
    stats = LoopStats(*seen.unbind())
    if objective == "dcgan":
        stats = stats._replace(wasserstein=None)
    if not any(due):
        return stats._replace(penalty=None, gradient_norm=None)
    if all(due):
        return stats
    assert stats.penalty is not None
    assert stats.gradient_norm is not None
    part = len(due) / sum(due)
    return stats._replace(penalty=stats.penalty * part, gradient_norm=stats.gradient_norm * part)
