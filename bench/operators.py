"""The claim: one fused operator beats the PyTorch that users write for it, in time and memory.

Bytes are those that any implementation must move: each input read once, each output written once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import wgan_fast
from bench.harness.case import Case, Figure
from bench.harness.guards import runs_compiled
from wgan_fast import ops, reference
from wgan_fast.models import DCGANCritic

_FEATURES = 12288  # a colour image of 64×64
_FLOAT32 = 4
_CLIP_VALUE = 0.01


def _samples(count: int, batch: int, device: torch.device) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, _FEATURES)
    return [torch.randn(shape, generator=generator).to(device) for _ in range(count)]


def _pair_and_alpha(batch: int, device: torch.device) -> list[Tensor]:
    alpha = torch.rand(batch, generator=torch.Generator().manual_seed(1))
    return [*_samples(2, batch, device), alpha.to(device)]


def _gradient(batch: int, device: torch.device) -> Tensor:
    return _samples(1, batch, device)[0].requires_grad_()


def _weights(device: torch.device) -> list[Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [p.detach().to(device) for p in DCGANCritic(64, channels=64).parameters()]


@torch.no_grad()
def _plain_direction(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    norm = gradient.flatten(1).norm(2, dim=1)
    excess = norm - 1
    return norm, excess**2, (2 * excess / (norm * len(gradient)))[:, None] * gradient


@torch.no_grad()
def _fused_direction(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return ops.gradient_norm_penalty(gradient)


def _plain_backward(gradient: Tensor) -> tuple[Tensor, Tensor]:
    penalty = ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
    return penalty.detach(), torch.autograd.grad(penalty, gradient)[0]


def _fused_backward(gradient: Tensor) -> tuple[Tensor, Tensor]:
    penalty = ops.gradient_norm_penalty(gradient)[1].mean()
    return penalty.detach(), torch.autograd.grad(penalty, gradient)[0]


def _plain_clip(weights: list[Tensor]) -> list[Tensor]:
    reference.clip_weights_(weights, _CLIP_VALUE)
    return weights


def _fused_clip(weights: list[Tensor]) -> list[Tensor]:
    wgan_fast.clip_weights_(weights, _CLIP_VALUE)
    return weights


_COPY = "plain copy"
_RMSPROP_NUMBERS = 5  # per weight: it, its gradient and its average in, it and its average out


def _torch_rmsprop(weights: list[nn.Parameter]) -> Callable[[], Any]:
    optimizer = torch.optim.RMSprop(weights, lr=5e-5, foreach=False)

    def step() -> None:
        optimizer.step()
        for weight in weights:
            weight.data.clamp_(-_CLIP_VALUE, _CLIP_VALUE)

    return step


def _fast_rmsprop(weights: list[nn.Parameter]) -> Callable[[], Any]:
    on_gpu = weights[0].is_cuda
    return wgan_fast.optim.RMSprop(weights, lr=5e-5, capturable=on_gpu, clip_value=_CLIP_VALUE).step


def _clipping_step(
    optimizer: Callable[[list[nn.Parameter]], Callable[[], Any]], weights: list[Tensor]
) -> Callable[[], list[Tensor]]:
    parameters = [nn.Parameter(weight) for weight in weights]
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.device)
    step = optimizer(parameters)

    def work() -> list[Tensor]:
        step()
        return parameters

    return work


def _result_to_copy(weights: list[Tensor]) -> Callable[[], list[Tensor]]:
    """Copies what two steps come to, and other numbers up to the bytes that a step moves."""
    step = _clipping_step(_torch_rmsprop, weights)
    step()
    result = torch.cat([weight.detach().flatten() for weight in step()])
    source = torch.cat((result, result, result[: len(result) // 2]))  # half of a step's bytes
    target = torch.empty_like(source)
    pieces = target[: len(result)].split([weight.numel() for weight in weights])
    copied = [piece.view(weight.shape) for piece, weight in zip(pieces, weights, strict=True)]

    def work() -> list[Tensor]:
        target.copy_(source)
        return copied

    return work


def _everything(
    outputs: tuple[Tensor, Tensor, Tensor], problem: list[Tensor]
) -> tuple[Tensor, ...]:
    """(norm, penalty, v) and the gradient of the mean penalty and of ⟨v, w⟩."""
    gradient, incoming = problem
    norm, penalty, direction = outputs
    (back,) = torch.autograd.grad(
        (penalty.mean(), direction), gradient, (penalty.new_ones(()), incoming)
    )
    return norm.detach(), penalty.detach(), direction.detach(), back


def _textbook_everything(problem: list[Tensor]) -> tuple[Tensor, ...]:
    gradient = problem[0]
    norm = gradient.flatten(1).norm(2, dim=1)
    penalty = (norm - 1) ** 2
    (direction,) = torch.autograd.grad(penalty.mean(), gradient, create_graph=True)
    return _everything((norm, penalty, direction), problem)


def _plain_everything(problem: list[Tensor]) -> tuple[Tensor, ...]:
    gradient = problem[0]
    norm = gradient.flatten(1).norm(2, dim=1)
    excess = norm - 1
    direction = (2 * excess / (norm * len(gradient)))[:, None] * gradient
    return _everything((norm, excess**2, direction), problem)


def _fused_everything(problem: list[Tensor]) -> tuple[Tensor, ...]:
    return _everything(ops.gradient_norm_penalty(problem[0]), problem)


def _gradient_and_incoming(device: torch.device) -> list[Tensor]:
    gradient, incoming = _samples(2, 64, device)
    return [gradient.requires_grad_(), incoming]


def _halves(batch: Tensor) -> tuple[Tensor, Tensor]:
    """What a copy that moves as many bytes copies, 5/2 of a part, and the rest of the batch."""
    flat = batch.flatten()
    moved = flat.numel() * 5 // 6
    return flat[:moved], flat[moved:]


def _merged_to_copy(problem: list[Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
    moved, rest = _halves(ops.merged_batch(*problem))
    return lambda: (moved.clone(), rest)


class _Row(NamedTuple):
    name: str
    operator: str
    problem: Callable[[int, torch.device], Any]
    plain: Callable[[Any], Any]
    fused: Callable[[Any], Any]
    tensors_moved: int  # of batch × features


_ROWS = (
    # Both samples in, the interpolates out.
    _Row(
        "interpolate",
        "interpolate",
        _pair_and_alpha,
        lambda samples: reference.interpolate(*samples),
        lambda samples: wgan_fast.interpolate(*samples),
        3,
    ),
    # The gradient in, the direction out; norms and penalties are small.
    _Row(
        "gradient_norm_penalty",
        "gradient_norm_penalty",
        _gradient,
        _plain_direction,
        _fused_direction,
        2,
    ),
    # Forward reads the gradient, backward reads it again and writes the gradient's own.
    _Row(
        "gradient_norm_penalty-backward",
        "gradient_norm_penalty",
        _gradient,
        _plain_backward,
        _fused_backward,
        3,
    ),
)


def _case(row: _Row, batch: int, devices: tuple[str, ...] = ("cpu", "cuda")) -> Case:
    return Case(
        name=f"operators/{row.name}" + (f"-{batch}" if batch != 64 else ""),
        sizes=f"{batch}×{_FEATURES}, float32",
        problem=partial(row.problem, batch),
        sides={"plain PyTorch": row.plain, "wgan_fast": row.fused},
        bytes_moved=row.tensors_moved * batch * _FEATURES * _FLOAT32,
        figures=(Figure("wgan_fast", "speed-up", 1.0), Figure("wgan_fast", "memory", 1.0)),
        requires=(runs_compiled(row.operator),),
        must_call={"wgan_fast": (f"wgan_fast::{row.operator}",)},
        devices=devices,
    )


_CLIPPED = sum(p.numel() for p in DCGANCritic(64, channels=64).parameters())

CASES = (
    *(_case(row, 64) for row in _ROWS),
    # A GPU's cache holds all of the above; its memory is measured with more.
    *(_case(row, 2048, devices=("cuda",)) for row in _ROWS),
    # Both samples in, both and the interpolates out.
    Case(
        name="operators/merged_batch",
        sizes=f"64×{_FEATURES}, float32",
        problem=partial(_pair_and_alpha, 64),
        prepare={
            "plain PyTorch": lambda s: (
                lambda: _halves(torch.cat((s[0], s[1], torch.lerp(s[1], s[0], s[2][:, None]))))
            ),
            "wgan_fast": lambda s: lambda: _halves(ops.merged_batch(*s)),
            _COPY: _merged_to_copy,
        },
        sides=dict.fromkeys(("plain PyTorch", "wgan_fast", _COPY), lambda work: work()),
        bytes_moved=5 * 64 * _FEATURES * _FLOAT32,
        figures=(
            Figure("wgan_fast", "speed-up", 1.0),
            Figure("wgan_fast", "memory", 1.0),
            Figure("wgan_fast", "speed-up", 0.85, against=(_COPY,)),
        ),
        requires=(runs_compiled("merged_batch"),),
        must_call={"wgan_fast": ("wgan_fast::merged_batch",)},
    ),
    # In: the gradient twice, w. Out: v, the result.
    Case(
        name="operators/gradient_norm_penalty-everything",
        sizes=f"norm, penalty and v, forward and backward, 64×{_FEATURES}, float32",
        problem=_gradient_and_incoming,
        sides={
            "v by autograd": _textbook_everything,
            "plain PyTorch": _plain_everything,
            "wgan_fast": _fused_everything,
        },
        bytes_moved=5 * 64 * _FEATURES * _FLOAT32,
        figures=(Figure("wgan_fast", "speed-up", 5.0),),
        requires=(runs_compiled("gradient_norm_penalty"),),
        must_call={"wgan_fast": ("wgan_fast::gradient_norm_penalty",)},
        tolerance=1e-4,
    ),
    Case(
        name="operators/clip_weights_",
        sizes=f"DCGAN critic for 64×64, {_CLIPPED:,} weights, float32",
        problem=_weights,
        sides={"plain PyTorch": _plain_clip, "wgan_fast": _fused_clip},
        bytes_moved=2 * _CLIPPED * _FLOAT32,
        figures=(Figure("wgan_fast", "speed-up", 1.0),),
        requires=(runs_compiled("clip_weights_"),),
        must_call={"wgan_fast": ("wgan_fast::clip_weights_",)},
    ),
    # The update and the clamp of every weight; the copy moves as many bytes.
    Case(
        name="operators/rmsprop",
        sizes=f"DCGAN critic for 64×64, {_CLIPPED:,} weights, float32",
        problem=_weights,
        prepare={
            "plain PyTorch": partial(_clipping_step, _torch_rmsprop),
            "wgan_fast": partial(_clipping_step, _fast_rmsprop),
            _COPY: _result_to_copy,
        },
        sides=dict.fromkeys(("plain PyTorch", "wgan_fast", _COPY), lambda work: work()),
        bytes_moved=_RMSPROP_NUMBERS * _CLIPPED * _FLOAT32,
        figures=(
            Figure("wgan_fast", "speed-up", 3.0),
            Figure("wgan_fast", "speed-up", 0.77, against=(_COPY,)),
        ),
        requires=(runs_compiled("rmsprop_"),),
        must_call={"wgan_fast": ("wgan_fast::rmsprop_",)},
    ),
)
