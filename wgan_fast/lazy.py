"""``Lazy``: a regularisation that is due in every k-th step alone."""

from torch import nn

from wgan_fast.arguments import describe


class Lazy(nn.Module):
    """Counts steps: the first is due, and every ``every``-th after it.

    Lazy regularisation (Karras et al., 2020, arXiv 1912.04958, appendix B: k = 16): the penalty is
    taken in every k-th step, with k times its weight, which makes the same gradient on average at
    a k-th of the penalty's price. The count is part of ``state_dict``.

    Args:
        every: k, an integer of at least 1.

    Raises:
        ValueError: ``every`` is not such an integer.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every: expected an integer of at least 1, got {describe(every)}")
        self.every = every
        self.steps = 0

    @property
    def due(self) -> bool:
        """Whether the next step is due."""
        return self.steps % self.every == 0

    def count(self) -> None:
        """A step has been taken."""
        self.steps += 1

    def get_extra_state(self) -> int:
        """The count."""
        return self.steps

    def set_extra_state(self, state: int) -> None:
        """As it was saved."""
        self.steps = state

    def extra_repr(self) -> str:
        """The setting."""
        return f"every={self.every}"
