"""What one iteration of a training loop is given: samples, and the conditions they belong to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from wgan_fast.arguments import describe
from wgan_fast.critic_shapes import check_pac
from wgan_fast.sample_forms import Form


class LoopInputs(NamedTuple):
    """Tensors that a captured iteration reads from memory of its own."""

    form: Form
    """How a step's samples lie in one tensor."""
    reals: Tensor
    """(n_critic, B/pac, ...), in that form."""
    cond: tuple[Tensor, ...] = ()
    """(n_critic, B, ...) each: of the real and the fake samples of the critic's steps."""
    generator_cond: tuple[Tensor, ...] = ()
    """(B, ...) each: of the fakes of the generator's step."""
    mask: tuple[Tensor, ...] = ()
    """One shaped as ``reals``, or none."""

    @property
    def batch(self) -> int:
        """B."""
        return self.form.batch

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for inputs that the same steps take, whatever their numbers and B."""
        return self.form.key, bool(self.mask), len(self.reals)

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [self.reals, *self.cond, *self.generator_cond, *self.mask]

    def on(self, tensors: Sequence[Tensor]) -> "LoopInputs":
        """The same in other tensors, in the order of ``tensors``."""
        count, (reals, *rest) = len(self.cond), tensors
        return self._replace(
            reals=reals,
            cond=tuple(rest[:count]),
            generator_cond=tuple(rest[count : 2 * count]),
            mask=tuple(rest[2 * count :]),
        )

    def of_step(self, step: int) -> list[Tensor]:
        """What a critic's step takes besides the samples."""
        return [one[step] for one in (*self.cond, *self.mask)]


def loop_inputs(reals: Any, cond: Any, generator_cond: Any, mask: Any, pac: int) -> LoopInputs:
    """The inputs of an iteration on ``reals``, which are checked already.

    Raises:
        TypeError, ValueError: a condition is no tensor with a row for each sample of its step, is
            elsewhere than the samples, or requires gradients; the generator's are not as many; the
            mask does not broadcast to the samples; B is no multiple of ``pac``.
    """
    reals = tree_map(torch.detach, reals)
    first = tree_map(lambda one: one[0], reals)
    steps, batch = tree_leaves(reals)[0].shape[:2]
    form = Form(first, check_pac(pac, batch))
    inputs = LoopInputs(form, form.packed(reals, steps))
    if mask is not None:
        inputs = inputs._replace(mask=(form.packed_mask(mask, steps),))
    if cond is None:
        if generator_cond is not None:
            raise ValueError(
                "generator_cond: expected None without cond, which are the critic's steps' own"
            )
        return inputs
    critics = _checked("cond", cond, form, (steps, form.batch), "(n_critic, B, ...)")
    if generator_cond is None:
        return inputs._replace(cond=critics, generator_cond=tuple(one[-1] for one in critics))
    own = _checked("generator_cond", generator_cond, form, (form.batch,), "(B, ...)")
    if [one.shape[1:] for one in own] != [one.shape[2:] for one in critics]:
        raise ValueError(
            f"generator_cond: expected the shapes of cond without its first axis, "
            f"{[tuple(one.shape[1:]) for one in critics]}, got {[tuple(one.shape) for one in own]}"
        )
    return inputs._replace(cond=critics, generator_cond=own)


def _checked(
    name: str, given: Any, form: Form, leading: tuple[int, ...], shape: str
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
        if one.device != form.device:
            raise ValueError(
                f"{name}: expected the device of reals, {form.device}, got {one.device}"
            )
        if one.requires_grad:
            raise ValueError(
                f"{name}: expected a tensor that requires no gradients, of which a step computes "
                "none; let an embedding be a part of the critic, and of the generator"
            )
    return tensors
