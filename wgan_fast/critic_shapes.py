"""``cond=``, ``select=``, ``pac=``, ``mask=``, ``inputs=``: checked, and put into one call."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from wgan_fast.arguments import check_choice, check_critic, check_pair, check_samples, describe
from wgan_fast.critic_calls import CriticCall
from wgan_fast.sample_forms import Form, check_several, check_several_pairs, is_several

INPUTS = ("joint", "separate")


class Shaped(NamedTuple):
    """What the backends take: a function of one tensor, and one tensor of each kind of samples."""

    critic: Callable[[Tensor], Tensor]
    real: Tensor
    fake: Tensor
    chunk_size: int | None
    """In rows of scores."""


def shaped(
    critic: Any,
    real: Any,
    fake: Any,
    *,
    chunk_size: int | None = None,
    **options: Any,
) -> Shaped:
    """A critic and its samples, checked; as they are, where there is nothing to put together.

    ``options`` are ``cond``, ``cond_kwargs``, ``select``, ``pac``, ``mask`` and ``inputs``.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """
    check_critic(critic)
    several = is_several(real)
    if several:
        check_several_pairs(real, fake)
    else:
        check_pair(real, fake)
    call = _call(critic, real, **options)
    if call is None:
        return Shaped(critic, real, fake, chunk_size)
    if chunk_size is not None:
        pac = call.form.pac
        if chunk_size % pac:
            raise ValueError(
                f"chunk_size: expected whole packs, a multiple of pac={pac}, got {chunk_size}"
            )
        chunk_size //= pac
    return Shaped(call, call.form.packed(real), call.form.packed(fake), chunk_size)


def shaped_alone(
    critic: Any, samples: Any, name: str = "x", **options: Any
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The same for samples of one kind, which errors call ``name``."""
    check_critic(critic)
    if is_several(samples):
        check_several(name, samples)
    else:
        check_samples(name, samples)
    call = _call(critic, samples, **options)
    return (critic, samples) if call is None else (call, call.form.packed(samples))


def _call(
    critic: Any,
    samples: Any,
    cond: Any = None,
    cond_kwargs: Any = None,
    select: Any = None,
    pac: Any = 1,
    mask: Any = None,
    inputs: Any = "joint",
) -> CriticCall | None:
    check_choice("inputs", inputs, INPUTS)
    several = is_several(samples)
    if inputs == "separate" and not several:
        raise ValueError(
            'inputs: expected samples of several tensors, a tuple, list or dict, for "separate", '
            f"got {describe(samples)}"
        )
    given = (cond, cond_kwargs, select, mask)
    if not several and pac == 1 and all(option is None for option in given):
        return None
    form = Form(samples, 1)
    if pac != 1:
        form = Form(samples, check_pac(pac, form.batch))
    rows, by_name, fixed = _checked_conditions(cond, cond_kwargs, form)
    return CriticCall(
        critic=getattr(critic, "_orig_mod", critic),  # torch.compile cannot differentiate it twice
        form=form,
        cond=rows,
        cond_kwargs=by_name,
        fixed=fixed,
        select=select,
        mask=None if mask is None else form.packed_mask(mask),
        separate=inputs == "separate",
        samples=form.batch,
    )


def packed_call(
    critic: Any,
    packed: Tensor,
    form: Form,
    *,
    cond: tuple[Tensor, ...],
    select: Any,
    mask: Tensor | None,
    separate: bool,
) -> Any:
    """The call of a critic on samples that are ``packed`` in a form, all of it checked already.

    The critic itself, where there is nothing to put together.
    """
    if form.single and form.pac == 1 and not cond and select is None and mask is None:
        return critic
    return CriticCall(
        critic=critic,
        form=form,
        cond=cond,
        cond_kwargs={},
        fixed={},
        select=select,
        mask=mask,
        separate=separate,
        samples=packed.shape[0] * form.pac,
    )


def check_pac(pac: Any, batch: int) -> int:
    """A number of samples that divides the batch's."""
    if not isinstance(pac, int) or isinstance(pac, bool):
        raise TypeError(f"pac: expected how many samples a pack has, got {describe(pac)}")
    if pac < 1 or batch % pac:
        raise ValueError(f"pac: expected a divisor of the batch's {batch} samples, got {pac}")
    return pac


def _checked_conditions(
    cond: Any, cond_kwargs: Any, form: Form
) -> tuple[tuple[Tensor, ...], dict[str, Tensor], dict[str, Any]]:
    """Positional conditions, named ones, and the named values that all samples share."""
    rows = () if cond is None else cond if isinstance(cond, (tuple, list)) else (cond,)
    for one in rows:
        if not isinstance(one, Tensor):
            raise TypeError(
                f"cond: expected a tensor with a row per sample, or a tuple of them, got "
                f"{describe(one)}; what is the same for all samples goes into cond_kwargs"
            )
        if not one.dim() or one.shape[0] != form.batch:
            raise ValueError(
                f"cond: expected a row per sample, first size {form.batch}, got {describe(one)}; "
                "what is the same for all samples goes into cond_kwargs"
            )
    if cond_kwargs is not None and not isinstance(cond_kwargs, Mapping):
        raise TypeError(
            f"cond_kwargs: expected a dict of the critic's arguments, got {describe(cond_kwargs)}"
        )
    by_name: dict[str, Tensor] = {}
    fixed: dict[str, Any] = {}
    for name, value in (cond_kwargs or {}).items():
        per_sample = isinstance(value, Tensor) and value.dim() and value.shape[0] == form.batch
        (by_name if per_sample else fixed)[name] = value
    for name, value in [*(("cond", one) for one in rows), *by_name.items()]:
        if value.device != form.device:
            raise ValueError(
                f"{name}: expected the device of the samples, {form.device}, got {value.device}"
            )
    return tuple(rows), by_name, fixed
