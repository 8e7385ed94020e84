"""Why the explicit engine cannot take a critic, or cannot take it in one batch."""


class Unsupported(RuntimeError):  # noqa: N818 - it is the critic that is
    """The critic does something that the explicit engine cannot derive exactly."""


class NoDoubleBackward(Unsupported):
    """An op of the critic can be differentiated once only, by whomever."""


class Independent(Exception):  # noqa: N818 - control flow: autograd has the last word
    """No op with a derivative other than zero leads from the critic's input to its score."""


class CrossSample(Exception):  # noqa: N818 - control flow: the batch is then not merged
    """An op lets the samples of a batch see each other, or the critic changed its own state."""
