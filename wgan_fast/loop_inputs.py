"""What one iteration of a training loop is given: samples, and the conditions they belong to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from wgan_fast.arguments import describe


class LoopInputs(NamedTuple):
    """Tensors that a captured iteration reads from memory of its own."""

    reals: Tensor
    """(n_critic, B, ...)"""
    cond: tuple[Tensor, ...] = ()
    """(n_critic, B, ...) each: of the real and the fake samples of the critic's steps."""
    generator_cond: tuple[Tensor, ...] = ()
    """(B, ...) each: of the fakes of the generator's step."""

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [self.reals, *self.cond, *self.generator_cond]

    def on(self, tensors: Sequence[Tensor]) -> "LoopInputs":
        """The same in other tensors, in the order of ``tensors``."""
        count = len(self.cond)
        return LoopInputs(tensors[0], tuple(tensors[1 : 1 + count]), tuple(tensors[1 + count :]))


def loop_inputs(reals: Tensor, cond: Any, generator_cond: Any) -> LoopInputs:
    """The inputs of an iteration on ``reals``, which are checked already.

    Raises:
        TypeError, ValueError: a condition is no tensor with a row for each sample of its step, is
            elsewhere than the samples, or requires gradients; the generator's are not as many.
    """
    if cond is None:
        if generator_cond is not None:
            raise ValueError(
                "generator_cond: expected None without cond, which are the critic's steps' own"
            )
        return LoopInputs(reals.detach())
    critics = _checked("cond", cond, reals, tuple(reals.shape[:2]), "(n_critic, B, ...)")
    if generator_cond is None:
        return LoopInputs(reals.detach(), critics, tuple(one[-1] for one in critics))
    own = _checked("generator_cond", generator_cond, reals, (reals.shape[1],), "(B, ...)")
    if [one.shape[1:] for one in own] != [one.shape[2:] for one in critics]:
        raise ValueError(
            f"generator_cond: expected the shapes of cond without its first axis, "
            f"{[tuple(one.shape[1:]) for one in critics]}, got {[tuple(one.shape) for one in own]}"
        )
    return LoopInputs(reals.detach(), critics, own)


def _checked(
    name: str, given: Any, reals: Tensor, leading: tuple[int, ...], shape: str
) -> tuple[Tensor, ...]:
    tensors = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if not tensors:
        raise ValueError(f"{name}: expected at least one tensor, got {describe(given)}")
    for one in tensors:
        if not isinstance(one, Tensor):
            raise TypeError(
                f"{name}: expected a tensor of shape {shape}, or a tuple of them, got "
                f"{describe(one)}"
            )
        if tuple(one.shape[: len(leading)]) != leading:
            raise ValueError(
                f"{name}: expected shape {shape}, a row per sample, beginning with {leading}, got "
                f"{describe(one)}"
            )
        if one.device != reals.device:
            raise ValueError(
                f"{name}: expected the device of reals, {reals.device}, got {one.device}"
            )
        if one.requires_grad:
            raise ValueError(
                f"{name}: expected a tensor that requires no gradients, of which a step computes "
                "none; let an embedding be a part of the critic, and of the generator"
            )
    return tensors
