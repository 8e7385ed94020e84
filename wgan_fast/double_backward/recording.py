"""What a recorder writes down: the ops that a derivative passes, as nodes over numbered values.

Each value is the input, a parameter, or the output of a node.
"""

from typing import Any

from torch import Tensor

from wgan_fast.double_backward.marks import CONSTANT


class Node:
    """One recorded op: its rule, the values it took and gave, and what its rule keeps of them."""

    __slots__ = (
        "active", "bends", "inputs", "keeps_delta", "kept", "op", "outputs", "parameters",
        "parametric", "rows", "rule", "several", "versions",
    )  # fmt: skip

    def __init__(
        self, op: Any, rule: Any, inputs: list[int | None], outputs: list[int | None]
    ) -> None:
        self.op = op
        self.rule = rule
        self.inputs = inputs
        """Per tensor argument, in order: the value it is, or None for a constant."""
        self.outputs = outputs
        """Per result: the value it is, or None for one that no derivative passes."""
        self.rows: list[Tensor | None] = []
        """Tensors that the rule keeps, whose first axis is the batch's."""
        self.kept: Any = None
        """Everything else that the rule keeps."""
        self.versions: list[int] = []

    def look_at(self, active: list[bool]) -> None:
        """Note once of the arguments what every pass asks."""
        self.active = [value is not None and active[value] for value in self.inputs]
        """Per argument, whether it depends on the critic's input."""
        self.parameters = [value is not None and not active[value] for value in self.inputs]
        """Per argument, whether it depends on parameters alone."""
        self.parametric = True in self.parameters
        self.several = self.active.count(True) > 1
        self.bends = self.rule.curved or (self.several and self.rule.bilinear)
        """Whether the second-order term may reach a value that depends on the input."""
        self.keeps_delta = self.parametric or self.bends
        """Whether ``second`` has a use for Δ."""


class Recording:
    """The nodes of one call of a critic, in the order they ran."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        """Those that depend on the input."""
        self.parameter_nodes: list[Node] = []
        """Those that depend on parameters alone: a spectral norm, a weight's transpose."""
        self.leaves: list[tuple[int, Tensor]] = []
        """The parameters met, with their values' numbers."""
        self.active: list[bool] = []
        """Per value: whether it depends on the input."""
        self.input = self.new_value(active=True)
        self.score = CONSTANT
        self.scores: Any = None
        self.stateful = False
        """Whether the critic changed tensors that are older than the call."""
        self.changed: list[tuple[Tensor, Tensor]] = []
        """Those tensors, and copies of what they were, in the order in which they were changed."""
        self.random = False
        """Whether random numbers were drawn."""
        self.half = False
        """Whether float16 is among the values."""
        self.digest = 0
        """Another one where Python took another way through the critic, or other numbers."""
        self.reads = False
        """Whether Python read what was made of several samples' conditions."""

    def new_value(self, active: bool) -> int:
        """The number of one more value."""
        self.active.append(active)
        return len(self.active) - 1
