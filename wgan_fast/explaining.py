"""``explain``: try a critic, and tell how it is taken.

What is told is what happens: the calls are made, in a place from which nothing comes out, and the
passes are run on a recording. Only the costs are computed.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wgan_fast import critic_objective, functional
from wgan_fast.arguments import check_critic, check_samples, describe, independent_score_error
from wgan_fast.critic_shapes import shaped_alone
from wgan_fast.double_backward import choice
from wgan_fast.double_backward.rules.local_autograd import ONCE_ONLY
from wgan_fast.examination import Recorded, Scored, parameters_of_graph, recorded, scored
from wgan_fast.explanation import Explanation, Route
from wgan_fast.live_memory import peak_bytes
from wgan_fast.untouched import untouched

Critic = Callable[..., Tensor]


class Cost(NamedTuple):
    """Of a call and its backward, in units of F: one forward of the critic on one batch."""

    explicit: int
    third_pass: int
    autograd: int


# A forward, a cotangent to the inputs, a tangent and the weights' gradients are an F each, on as
# many batches as they run on; the third pass, which a curved critic needs, is a cotangent and the
# weights' gradients on the penalty's batches.
_COSTS = {
    "gradient_penalty": Cost(4, 2, 6),
    "critic_loss": Cost(10, 2, 12),
    "r1": Cost(7, 2, 9),
    "r1_and_r2": Cost(8, 4, 12),
}
_AT = {"critic_loss": "mix", "r1": "real", "r1_and_r2": "both"}


def explain(critic: Critic, *example: Any) -> Explanation:
    """How wgan_fast takes a critic, for ``print``: its ops, the route, the cost, the memory.

    The critic is called with the example, and a gradient penalty and critic losses are taken, each
    a few times. Nothing of that stays: PyTorch's random numbers, buffers, gradients and what is
    remembered of the critic are as before. The critic's hooks run, and what it keeps in Python sees
    the calls; on a CUDA device the peak memory statistics begin anew.

    Costs are in units of F, one forward of the critic on one batch, as its matrix products and
    convolutions have it, with all parameters trained; to within the first layer, whose input needs
    no gradient in every pass. A penalty is 4F (forward, input gradient, tangent, weights'
    gradients) where double backward takes 6F, a critic loss 10F for 12F, R1 7F for 9F, R1 + R2 8F
    for 12F. In a curved critic (smooth activations, normalisations, attention) second derivatives
    go back once more, through input and weights: 2F more for each batch with a penalty, at most;
    6F, 12F, 9F and 12F, which is what double backward takes there.

    Args:
        critic: callable from the example to scores; a module, a compiled one, or any function.
        *example: the samples ``(B, ...)``, and whatever else the critic is called with: tensors
            of B rows alone as ``cond=`` takes them, anything else as the same for all samples.

    Returns:
        An :class:`Explanation`, for this example's shape, type, device and the critic's mode.

    Raises:
        TypeError: the critic cannot be called, there is no example, the first of it is no floating
            point tensor, or the scores are none.
        ValueError: the samples are empty or have rank 1, or there is not one score per sample.
    """
    check_critic(critic)
    if not example:
        raise TypeError("x: expected the samples that the critic takes, explain(critic, x, ...)")
    x, *others = example
    check_samples("x", x)
    critic = choice.unwrapped(critic)
    name = getattr(critic, "__name__", type(critic).__name__)
    if others and all(isinstance(one, Tensor) and one.shape[:1] == x.shape[:1] for one in others):
        critic = shaped_alone(critic, x, cond=others)[0]
    # A function that is new is known by its modules, as one that a loop makes anew in every step.
    elif others or not isinstance(critic, nn.Module):
        critic = functools.partial(_called, critic, *others)

    with torch.inference_mode(False), torch.enable_grad(), untouched(critic, x.device):
        x = x.detach().clone()
        seen = scored(critic, x)
        found = recorded(critic, x)
        routes, unmerged = {}, None
        for call in _COSTS:
            with choice.Memory.blank():
                routes[call] = _route(critic, x, call, seen, found)
                if call == "critic_loss":
                    unmerged = choice.unmerged.get(critic, _AT[call], x.shape)
    explicit = routes["critic_loss"].backend == "explicit"
    return Explanation(
        critic=name,
        batch=describe(x).removeprefix("a "),
        ops=found.ops,
        **routes,
        merged=explicit and unmerged is None,
        unmerged_reason=unmerged if explicit else routes["critic_loss"].reason,
        curved=found.curved,
        warnings=tuple(_warnings(critic, seen, found)),
    )


def _called(critic: Critic, *arguments: Any) -> Tensor:
    *others, x = arguments
    return critic(x, *others)


def _route(critic: Critic, x: Tensor, call: str, seen: Scored, found: Recorded) -> Route:
    if not seen.depends:
        return Route(None, str(independent_score_error()), None, None, None, None)

    # Other samples than x: equal ones could see each other and give the same scores.
    other = 0.5 * x.roll(1, 0)

    def step(backend: str) -> Any:
        if call == "gradient_penalty":
            loss = functional.gradient_penalty(critic, x, other, backend=backend)
        else:
            target = 1.0 if call == "critic_loss" else 0.0
            loss = critic_objective.critic_loss(
                critic, x, other, at=_AT[call], target=target, backend=backend
            )
        leaves = parameters_of_graph(loss)
        return torch.autograd.grad(loss, leaves, allow_unused=True) if leaves else loss

    costs = _COSTS[call]
    autograd_cost: int | None = costs.autograd
    autograd_peak: int | None = None
    try:
        autograd_peak = peak_bytes(lambda: step("autograd"), x.device)
    except torch.OutOfMemoryError:
        pass
    except RuntimeError:
        autograd_cost = None
    try:
        step("auto")  # the first finds out what the others know
        peak = peak_bytes(lambda: step("auto"), x.device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        once_only = any(words in reason for words in ONCE_ONLY)
        if once_only and "first_order" not in reason:
            reason = f'no double backward ({reason}); backend="first_order" needs none'
        return Route(None, reason + seen.functions, None, autograd_cost, None, autograd_peak)

    obstacle = choice.refusal(critic) or choice.unsupported.get(critic) or found.constant
    if obstacle is not None:
        obstacle += seen.functions
    elif call not in ("gradient_penalty", "critic_loss"):
        obstacle = choice.unmerged.get(critic, _AT[call], x.shape)  # for these, one batch or none
    if obstacle is not None:
        return Route("autograd", obstacle, costs.autograd, autograd_cost, peak, autograd_peak)
    cost = costs.explicit + (costs.third_pass if found.curved else 0)
    return Route("explicit", None, cost, autograd_cost, peak, autograd_peak)


def _warnings(critic: Critic, seen: Scored, found: Recorded) -> list[str]:
    told = []
    if not seen.depends:
        told.append("the score ignores the input: every penalty raises an error")
    elif seen.flat:
        told.append(
            "the score's gradient in the input is zero at every sample of this batch: a penalty "
            "has nothing to act on"
        )
    parts = [part for module in choice.modules_of(critic) for part in module.modules()]
    if "aten.native_batch_norm.default" in {op.op for op in found.ops} or any(
        isinstance(part, _BatchNorm) and (part.training or part.running_mean is None)
        for part in parts
    ):
        told.append(
            "BatchNorm in training mode: the penalty is on the gradient of each sample's score, "
            "which then depends on the batch; the paper takes LayerNorm in its place (Gulrajani "
            "et al., 2017, section 4)"
        )
    if seen.crosses:
        told.append(
            "samples see each other: a sample's gradient, whose norm is penalised, holds the other "
            "samples' scores as well"
        )
    return told
