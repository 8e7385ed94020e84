"""The checks on what users hand in: each error names the argument, what came, what was expected.

No check reads a tensor's values, which on a GPU would wait for the device and break graph capture.
"""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from wgan_fast.objectives import NAMED, Objective
from wgan_fast.ops import accumulation_dtype

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def describe(value: object) -> str:
    """A value in an error message: a tensor by shape, dtype and device, all else in a few words."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)} on {value.device}"
    if isinstance(value, (list, tuple, dict, set)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r} ({type(value).__name__})"


def check_samples(name: str, samples: Any) -> None:
    """A batch of samples: a floating point tensor ``(B, ...)`` of rank ≥ 2 with something in it."""
    if not isinstance(samples, Tensor):
        raise TypeError(f"{name}: expected a tensor of shape (B, ...), got {describe(samples)}")
    if samples.dtype not in FLOATING:
        raise TypeError(
            f"{name}: expected a floating point tensor (float64, float32, bfloat16 or float16), "
            f"got {describe(samples)}; convert it with {name}.float()"
        )
    if samples.dim() < 2:
        raise ValueError(
            f"{name}: expected rank ≥ 2, the first axis the batch's, got {describe(samples)}; "
            f"add an axis with {name}.unsqueeze(-1)"
        )
    if samples.numel() == 0:
        raise ValueError(f"{name}: expected at least one sample, got {describe(samples)}")


def check_pair(real: Any, fake: Any, part: str = "") -> None:
    """``real`` and ``fake``, or a ``part`` of them: samples of one shape, dtype and device."""
    check_samples(f"real{part}", real)
    check_samples(f"fake{part}", fake)
    if fake.shape != real.shape:
        raise ValueError(
            f"fake{part}: expected the shape of real, {tuple(real.shape)}, got "
            f"{tuple(fake.shape)}; "
            "cut both to the same number of samples, e.g. in the last batch of an epoch"
        )
    if fake.dtype != real.dtype:
        raise TypeError(
            f"fake{part}: expected the dtype of real, {real.dtype}, got {fake.dtype}; "
            "convert it with fake.to(real.dtype)"
        )
    if fake.device != real.device:
        raise ValueError(
            f"fake{part}: expected the device of real, {real.device}, got {fake.device}; "
            "move it with fake.to(real.device)"
        )


def check_device(device: Any, real: Tensor) -> None:
    """``device``, which tutorials pass in fourth place: must be where ``real`` already is."""
    if device is None:
        return
    if isinstance(device, Tensor):
        raise TypeError(
            f"device: expected a torch.device, a string or None, got {describe(device)}; "
            "pass α by its name, alpha=..., and a critic's labels by cond=..., or in a closure: "
            "lambda x: critic(x, labels)"
        )
    try:
        named = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise TypeError(
            f"device: expected a torch.device, a string or None, got {describe(device)}"
        ) from error
    index_differs = named.index is not None and named.index != real.device.index
    if named.type != real.device.type or (named.type != "cpu" and index_differs):
        raise ValueError(
            f"device: expected the device of real, {real.device}, got {named}; "
            "move real and fake first, or leave device out"
        )


def check_number(name: str, value: Any, positive: bool = False) -> float:
    """A finite number ≥ 0, or above 0."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {describe(value)}")
    number = float(value)
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        above = "> 0" if positive else "≥ 0"
        raise ValueError(f"{name}: expected a finite number {above}, got {number!r}")
    return number


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def check_objective(objective: Any) -> Objective:
    """The objective of that name, or the caller's own."""
    if isinstance(objective, str):
        return NAMED[check_choice("objective", objective, tuple(NAMED))]
    if not callable(objective):
        raise TypeError(
            "objective: expected a name or a function of the real and the fake scores, "
            f"got {describe(objective)}"
        )
    return objective  # type: ignore[no-any-return]


def check_chunk_size(chunk_size: Any, backend: str) -> None:
    """None, or a positive number of samples, where the backend can take slices."""
    if chunk_size is None:
        return
    if not isinstance(chunk_size, int) or isinstance(chunk_size, bool):
        raise TypeError(f"chunk_size: expected a number of samples, got {describe(chunk_size)}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size: expected a positive number of samples, got {chunk_size}")
    if backend in ("autograd", "first_order"):
        raise ValueError(f'chunk_size: backend="{backend}" takes the whole batch; leave one out')


def check_critic(critic: Any) -> None:
    """``critic``: anything that can be called with a batch of samples."""
    if isinstance(critic, Tensor) or not callable(critic):
        raise TypeError(
            f"critic: expected a callable from samples to scores, got {describe(critic)}"
        )


def check_scores(scores: Any, samples: Tensor) -> Tensor:
    """What the critic gave back: one floating point score, or one map of them, per sample."""
    if not isinstance(scores, Tensor):
        raise TypeError(
            f"critic: expected it to return a tensor of scores, got {describe(scores)}; "
            "pick the scores with select=..., or in a closure: lambda x: critic(x)[0]"
        )
    if not scores.is_floating_point():
        raise TypeError(f"critic: expected floating point scores, got {describe(scores)}")
    if scores.dim() == 0 or scores.shape[0] != samples.shape[0]:
        raise ValueError(
            f"critic: expected one score per sample, first size {samples.shape[0]}, got "
            f"{describe(scores)}; return the scores themselves, not their mean"
        )
    return scores


def independent_score_error() -> ValueError:
    """The error for a critic whose score does not change with its input."""
    return ValueError(
        "critic: expected a score that depends on the critic's input, got one that does not: no "
        "derivative finds a way from the score to the samples; look for a detach(), a no_grad() or "
        "a rounding inside the critic"
    )


def check_alpha(alpha: Any, real: Tensor) -> Tensor:
    """α given by the caller: ``(B,)`` or ``(B, 1, ..., 1)``; returned as ``(B,)``, to compute with.

    α is converted to the accumulation type: float64 for float64 samples, else float32.
    """
    batch = real.shape[0]
    if not isinstance(alpha, Tensor) or not alpha.is_floating_point():
        raise TypeError(f"alpha: expected a floating point tensor, got {describe(alpha)}")
    if alpha.dim() == 0 or alpha.shape[0] != batch or alpha.numel() != batch:
        raise ValueError(
            f"alpha: expected one number per sample, shape ({batch},) or ({batch}, 1, ..., 1), got "
            f"{describe(alpha)}; the paper's ε is neither one per batch nor one per element"
        )
    if alpha.device != real.device:
        raise ValueError(f"alpha: expected the device of real, {real.device}, got {alpha.device}")
    wide = accumulation_dtype(real.dtype)
    return alpha if alpha.dim() == 1 and alpha.dtype == wide else alpha.reshape(batch).to(wide)


def check_generator(generator: Any, real: Tensor) -> None:
    """None, or a generator of random numbers where the samples are."""
    if generator is None:
        return
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator for α, got {describe(generator)}")
    if generator.device.type != real.device.type:
        raise ValueError(
            f"generator: expected one on the device of real, {real.device}, "
            f"got one on {generator.device}"
        )


def draw_alpha(real: Tensor, generator: Any) -> Tensor:
    """α ~ U(0, 1), one per sample, on the samples' device; the same numbers as torch.rand(B, 1)."""
    check_generator(generator, real)
    return torch.rand(
        real.shape[0],
        generator=generator,
        device=real.device,
        dtype=accumulation_dtype(real.dtype),
    )


def choose_alpha(alpha: Any, generator: Any, real: Tensor) -> Tensor:
    """The α that was given, or a fresh one."""
    if alpha is None:
        return draw_alpha(real, generator)
    if generator is not None:
        raise ValueError("generator: draws α, but alpha was given as well; leave one of them out")
    return check_alpha(alpha, real)


def parameters_of(module_or_parameters: Any) -> list[Tensor]:
    """The tensors to clip: a module's parameters (never its buffers), an iterable's, or one."""
    given: Iterable[Any]
    if isinstance(module_or_parameters, nn.Module):
        given = module_or_parameters.parameters()
    elif isinstance(module_or_parameters, Tensor):
        given = [module_or_parameters]
    else:
        given = module_or_parameters
    try:
        tensors = list(given)
    except TypeError as error:
        raise TypeError(
            "module_or_parameters: expected an nn.Module, a tensor or an iterable of tensors, got "
            f"{describe(module_or_parameters)}"
        ) from error
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor) or tensor.dtype not in FLOATING:
            raise TypeError(
                f"module_or_parameters: expected floating point tensors, got {describe(tensor)} "
                f"in place {position}"
            )
    return tensors
