"""``backend="first_order"``: the penalty's gradient from first derivatives alone, approximately.

With g = ∇f(x) at hand, v = φ'(‖g‖) (∂‖g‖/∂g) / B is a constant direction, and the penalty's
gradient in θ is that of the directional derivative Σᵢ ⟨vᵢ, ∇f(xᵢ)⟩. A central difference along v,

    ∇θ P ≈ ∇θ [Σᵢ f(xᵢ + h vᵢ) − Σᵢ f(xᵢ − h vᵢ)] / 2h,

needs two ordinary passes more and no derivative of a derivative: the way for critics whose kernels
have none. All samples move together, so that it holds where they see each other, too.

Measured against float64, relative to the gradient's norm, the worst of 40 critics each with an
LSTM, flash attention, or a Function of one's own with one derivative: 2e-10 in float64, 1e-4 in
float32, 5e-3 under float16 and 4e-2 under bfloat16 autocast. That is for smooth critics. The
difference steps across the kinks of ReLU, LeakyReLU or max pooling, each of which then counts with
1/2h: on such a critic the error is larger than the gradient itself, and a warning says so.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wgan_fast import autograd_route, ops
from wgan_fast.critic_calls import CriticCall, measured
from wgan_fast.double_backward.choice import Memory
from wgan_fast.moment import Moment
from wgan_fast.penalties import Penalty

Critic = Callable[[Tensor], Tensor]

# How far the sample that moves most is moved, relative to the samples' norm. The difference errs by
# curvature times its square, and by the critic's rounding over it; measured to be least near these.
_STEP = {torch.float64: 1e-6, torch.float32: 4e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def penalty(critic: Critic, x: Tensor, form: Penalty) -> tuple[Tensor, Tensor, Tensor]:
    """(mean penalty, norms, penalties) at the points ``x``; the mean can be differentiated once.

    The critic is called three times with the same random numbers, from the same buffers; the first
    time once more, to look for kinks.
    """
    differentiate = torch.is_grad_enabled()
    x = x.detach()
    before = Moment(critic, x.device)
    if not _looked_at.get(critic):
        with before.again(), torch.no_grad(), _Kinks(critic, x) as kinks:
            critic(x)
        kinks.warn()
        _looked_at.set(critic, True)
    with before.again():
        _, gradient = autograd_route.scores_and_gradient(
            critic, x.clone().requires_grad_(), create_graph=False
        )
    gradient = gradient.to(ops.accumulation_dtype(gradient.dtype))
    norms, penalties, direction = measured(critic, gradient, lambda g, mask: form.of(g, mask=mask))
    value = penalties.mean()
    if differentiate:
        step = _step(x, direction)
        with before.again():
            above = autograd_route.scores(critic, x + (step * direction).to(x.dtype))
        below = autograd_route.scores(critic, x - (step * direction).to(x.dtype))
        value = _GradientOf.apply(value, (above.sum() - below.sum()) / (2 * step))
    else:
        autograd_route.scores(critic, x)  # the trace that one call leaves
    return value, norms, penalties


def _step(x: Tensor, direction: Tensor) -> Tensor:
    """h, with max ‖h vᵢ‖ the given part of the samples' root mean square norm."""
    computed_in = x.dtype
    if computed_in == torch.float32 and torch.is_autocast_enabled(x.device.type):
        computed_in = torch.get_autocast_dtype(x.device.type)
    norms = torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=direction.dtype)
    moves = torch.linalg.vector_norm(direction.flatten(1), dim=1)
    typical, longest = norms.square().mean().sqrt(), moves.max()
    one = torch.ones_like(longest)  # nothing moves, or from the origin
    return _STEP[computed_in] * typical.where(typical > 0, one) / longest.where(longest > 0, one)


_looked_at = Memory()


class _Kinks(TorchDispatchMode):
    """Looks for operators whose derivative jumps."""

    # fmt: off
    _OPS = frozenset({
        "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_",
        "threshold", "threshold_", "_prelu_kernel", "rrelu_with_noise", "hardtanh",
        "hardtanh_", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_",
        "hardshrink", "softshrink", "clamp", "clamp_", "clamp_min",
        "clamp_min_", "clamp_max", "clamp_max_", "abs", "abs_",
        "maximum", "minimum", "max", "min", "amax",
        "amin", "sort", "topk", "max_pool2d_with_indices", "max_pool3d_with_indices",
        "adaptive_max_pool2d", "adaptive_max_pool3d",
    })
    # fmt: on

    def __init__(self, critic: Critic, x: Tensor) -> None:
        super().__init__()
        # A pack is one row of x, and may be several of what the critic gets.
        self._rows = {x.shape[0], critic.samples if isinstance(critic, CriticCall) else x.shape[0]}
        self._found: set[str] = set()

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = op._schema.name.removeprefix("aten::")
        # Not those on a parameter, such as the floor of a spectral norm.
        if name in self._OPS and args[0].dim() and args[0].shape[0] in self._rows:
            self._found.add(name)
        return op(*args, **(kwargs or {}))

    def warn(self) -> None:
        """Tell once of a critic on which central differences are no good."""
        if self._found:
            warnings.warn(
                f'backend="first_order": the critic has kinks ({", ".join(sorted(self._found))}); '
                "a central difference steps across them, with an error that may be larger than "
                'the gradient. Take a smooth activation, or backend="explicit".',
                stacklevel=5,
            )


class _GradientOf(torch.autograd.Function):
    """A value, with the first derivatives of another."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, other: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> Any:  # type: ignore[override]
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError('backend="first_order" gives first derivatives only')
        return None, incoming
