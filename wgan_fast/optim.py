"""Optimisers with WGAN's weight clipping in the same pass over memory."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from wgan_fast import ops
from wgan_fast.arguments import FLOATING, check_number, describe

_SETTINGS = ("alpha", "eps", "weight_decay", "momentum")


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton, 2012) with WGAN's weight clipping in it: one pass over memory.

    A step is :class:`torch.optim.RMSprop`'s, to its rounding, and then ``clamp_`` of every
    parameter of the group to [−c, c], as in algorithm 1 of Arjovsky et al., 2017 (arXiv 1701.07875;
    there ``lr=5e-5``, c = 0.01, no momentum)::

        g ← ∇θ + weight_decay · θ                   −∇θ with maximize
        v ← alpha · v + (1 − alpha) · g²
        m ← alpha · m + (1 − alpha) · g             centered, else m = 0
        d ← g / (√(v − m²) + eps)
        b ← momentum · b + d                        with momentum, else b = d
        θ ← clamp(θ − lr · b, −c, c)

    One call of :func:`wgan_fast.ops.rmsprop_` updates all parameters: each parameter, gradient and
    state is read once and written once. 16-bit parameters are updated in float32 and rounded once.

    A parameter without a gradient is not updated, but still clipped: every parameter of a group
    with a ``clip_value`` lies in [−c, c] after each step. What the optimiser was not given is not
    clipped, and no buffer is.

    ``state_dict`` is :class:`torch.optim.RMSprop`'s, so that each loads the other's; a group
    without ``clip_value`` keeps this optimiser's. Learning rate schedules, ``GradScaler`` and
    closures work. Not differentiable.

    Args:
        params: float64, float32, bfloat16 or float16 parameters, or groups of them; each group may
            have values of its own for everything below.
        lr: the learning rate; a tensor with one number on the parameters' device is read there,
            and nothing waits for it.
        alpha: the averages' share of the past.
        eps: added to the root.
        weight_decay: the L2 penalty's factor.
        momentum: b's share of the past; 0 for no b at all.
        centered: subtract the squared average gradient.
        maximize: climb.
        capturable: keep the counts of steps on the parameters' device, for a CUDA graph. They enter
            no formula.
        clip_value: c > 0; None for no clipping.

    Raises:
        TypeError: a parameter is not real floating point, a hyperparameter no number; from
            ``step``, a gradient is sparse.
        ValueError: a hyperparameter is out of range.
        RuntimeError: from ``step``, in a CUDA graph's capture without ``capturable``, or with
            ``lr`` a tensor on the host.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        capturable: bool = False,
        clip_value: float | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "maximize": maximize,
            "clip_value": clip_value,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; what it does not say is as for the others.

        Raises:
            TypeError, ValueError: as the class.
        """
        super().add_param_group(param_group)
        try:
            _check_group(self.param_groups[-1])
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of this class or of :class:`torch.optim.RMSprop`, which has no bound."""
        bounds = [group["clip_value"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, bound in zip(self.param_groups, bounds, strict=True):
            group.setdefault("clip_value", bound)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step.

        Args:
            closure: computes the loss and its gradients anew; called first.

        Returns:
            The closure's loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving: dict[torch.device, list[Tensor]] = {}
            resting = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    resting.append(parameter)
                else:
                    moving.setdefault(parameter.device, []).append(parameter)
            for device, parameters in moving.items():
                self._update(group, device, parameters)
            if resting and group["clip_value"] is not None:
                ops.clip_weights_(resting, group["clip_value"])
        return loss

    def _update(
        self, group: dict[str, Any], device: torch.device, parameters: list[Tensor]
    ) -> None:
        _check_capture(group, device)
        states = [self._state_of(parameter, group) for parameter in parameters]
        torch._foreach_add_([state["step"] for state in states], 1)

        def of_all(name: str, wanted: bool = True) -> list[Tensor]:
            return [state[name] for state in states] if wanted else []

        ops.rmsprop_(
            parameters,
            [_dense_gradient(parameter) for parameter in parameters],
            of_all("square_avg"),
            of_all("grad_avg", group["centered"]),
            of_all("momentum_buffer", group["momentum"] > 0),
            lr=_on_device(group["lr"], device),
            maximize=group["maximize"],
            clip_value=group["clip_value"],
            **{name: group[name] for name in _SETTINGS},
        )

    def _state_of(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The parameter's state, in the parameter's memory format; what it lacks begins at zero."""
        state: dict[str, Any] = self.state[parameter]
        step = state.get("step", 0)
        if not isinstance(step, Tensor):  # absent, or a number in a file of an early PyTorch
            step = torch.tensor(float(step), dtype=torch.float32)
        state["step"] = step.to(parameter.device) if group["capturable"] else step
        names = ["square_avg"]
        names += ["momentum_buffer"] if group["momentum"] > 0 else []
        names += ["grad_avg"] if group["centered"] else []
        for name in names:
            kept = state.get(name)
            if kept is None:
                state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            elif kept.stride() != parameter.stride():  # loaded, or the parameter has moved
                ordered = torch.empty_like(parameter)
                if ordered.stride() == parameter.stride():  # else the parameter has holes
                    state[name] = ordered.copy_(kept)
        return state


def _check_group(group: dict[str, Any]) -> None:
    lr = group["lr"]
    if not isinstance(lr, Tensor):
        check_number("lr", lr)
    elif lr.numel() != 1 or lr.dtype not in FLOATING:
        raise ValueError(f"lr: expected a number or a tensor with one, got {describe(lr)}")
    for name in _SETTINGS:
        check_number(name, group[name])
    if group["clip_value"] is not None:
        check_number("clip_value", group["clip_value"], positive=True)
    for parameter in group["params"]:
        if parameter.dtype not in FLOATING:
            raise TypeError(
                "params: expected float64, float32, bfloat16 or float16 parameters, got "
                f"{describe(parameter)}"
            )


def _dense_gradient(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None
    if gradient.layout != torch.strided:
        raise TypeError(
            f"params: expected dense gradients, got one of layout {gradient.layout} for "
            f"{describe(parameter)}; an nn.Embedding has them with sparse=False"
        )
    return gradient


def _on_device(lr: float | Tensor, device: torch.device) -> float | Tensor:
    """The learning rate where the kernel reads it; one on the host is read there."""
    if isinstance(lr, Tensor) and (lr.device.type != "cpu" or device.type == "cpu"):
        return lr.to(device)
    return float(lr)


def _check_capture(group: dict[str, Any], device: torch.device) -> None:
    if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        return
    if not group["capturable"]:
        raise RuntimeError("capturable: expected True in the capture of a CUDA graph, got False")
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.device.type == "cpu":
        raise RuntimeError(
            f"lr: expected a number, or a tensor on {device}, in the capture of a CUDA graph, got "
            f"{describe(lr)}, whose changes no replay would see"
        )
