"""What the trainer raises when the fault is the user's to mend; the CLI shows the message alone."""


class TrainingError(Exception):
    """Base of every error of the trainer whose message says all that there is to say."""


class ConfigError(TrainingError, ValueError):
    """A setting that cannot be: the message names it, what came and what was expected."""


class RunFolderError(TrainingError, OSError):
    """The run folder is already in use, or is not a run folder."""


class CheckpointError(TrainingError, ValueError):
    """A file that is not a whole checkpoint of this project."""


class NonFiniteLossError(TrainingError, FloatingPointError):
    """A loss became infinite or NaN; what the run folder held before stays."""
