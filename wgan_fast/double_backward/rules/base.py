"""What a rule is: how one ATen op is linear in what, and what its derivatives are.

For y = f(a₁, a₂, ...) at the recorded point, with cotangent Δ of y and tangents tᵢ of aᵢ:

- ``vjp``: āᵢ = (∂f/∂aᵢ)ᵀ Δ,
- ``jvp``: t_y = Σ (∂f/∂aᵢ) tᵢ,
- ``second``: āᵢ = ∂/∂aᵢ ⟨Δ, Σⱼ (∂f/∂aⱼ) tⱼ⟩, the term that curvature and parameters bring.

``wanted`` says per tensor argument whether its cotangent is asked for; what is not wanted may be
None, and a tangent or a cotangent that is None is zero.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from wgan_fast.double_backward.marks import carries_samples

# One per tensor argument; each a Tensor or None.
Tensors = list[Any]
Times = Callable[[Any], Any]


class Rule:
    """The base: a differentiable op with one result; subclasses say what it keeps and derive it."""

    composite = False
    mutates = False
    stops_gradients = False
    """The results are constants to a derivative."""
    forgets_values = False
    """The results do not depend on the arguments' numbers at all (``zeros_like``)."""
    in_place_safe = False
    """The rule keeps nothing that the in-place version of the op overwrites."""
    curved = False
    """``second`` can be more than the derivative in parameters of a bilinear op."""
    fresh = False
    """``vjp`` gives memory of its own, no view or alias of what it was given.

    So does ``jvp``, or it gives one of the tangents as it is.
    """
    bilinear = False
    """Bends where two of its arguments depend on the input, and only there."""
    name = "own rule"

    def passes(self, position: int) -> bool:
        """Whether a derivative passes through result ``position``."""
        return position == 0

    def crosses_samples(self, args: tuple[Any, ...]) -> bool:
        """Known before it is run to mix the samples of a batch."""
        return False

    def state(self, args: tuple[Any, ...]) -> list[Tensor]:
        """The tensors that the op writes into without saying so in its schema."""
        return []

    def keeps_rows(self, samples: int, args: tuple[Any, ...], result: Any) -> bool:
        """Proven to keep each sample's numbers in the sample's own rows of the first axis."""
        return False

    def run(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The op's result, by the op itself or by others that give the same."""
        return op(*args, **kwargs)

    def record(self, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Keep in ``node`` what the derivatives need."""

    def forget(self, node: Any) -> None:
        """Drop what is kept for a third pass alone, once it is known that there is none."""

    def vjp(self, node: Any, delta: Any, wanted: list[bool]) -> Tensors:
        raise NotImplementedError

    def overwrite(self, node: Any, delta: Tensor) -> bool:
        """Turn ``delta`` into the one argument's cotangent where it lies, if the rule can."""
        return False

    def jvp(self, node: Any, tangents: Tensors) -> Any:
        raise NotImplementedError

    def push_over(self, node: Any, tangent: Tensor) -> bool:
        """Turn the one argument's ``tangent`` into the result's where it lies, if the rule can."""
        return False

    def second(
        self, node: Any, delta: Any, tangents: Tensors, wanted: list[bool]
    ) -> Tensors | None:
        """None where the op is linear in its only differentiable argument."""
        return None

    def second_and_loss(
        self,
        node: Any,
        delta: Any,
        tangents: Tensors,
        wanted: list[bool],
        loss: Times,
        last: bool,
    ) -> Tensors | None:
        """``second`` plus the parameters' part of ``vjp`` at ``loss(Δ)``, if one call gives both.

        ``loss`` multiplies rows by how much their sample enters the loss. If it is the ``last`` one
        to need what the node keeps, that may be dropped.
        """
        return None


def elementwise_rows(args: tuple[Any, ...], result: Any) -> bool:
    """Every tensor argument is aligned with the result along the batch, or constant along it."""
    if not isinstance(result, Tensor) or not result.dim():
        return False
    for arg in args:
        if isinstance(arg, Tensor) and arg.dim():
            if arg.dim() == result.dim():
                if arg.requires_grad and arg.shape[0] > 1:
                    return False  # a parameter with a row for every position
                if arg.shape[0] != result.shape[0] and arg.shape[0] != 1:
                    return False
            elif carries_samples(arg):  # and broadcasts along another axis than the batch's
                return False
    return True


def is_rows(tensor: Tensor, result: Tensor) -> bool:
    """Whether an elementwise op's argument has the result's batch axis, to be cut with it."""
    return (
        tensor.dim() == result.dim() and tensor.shape[:1] == result.shape[:1] and tensor.dim() > 0
    )


def sum_to(tensor: Tensor, shape: Any) -> Tensor:
    """Undo a broadcast."""
    return tensor if tensor.shape == shape else tensor.sum_to_size(shape)


def plus(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """A sum in which None is zero."""
    if one is None or other is None:
        return other if one is None else one
    return one + other
