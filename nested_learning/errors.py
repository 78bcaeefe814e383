"""Errors in the user's input: one line with the problem, the key, what is allowed, and the override that fixes it."""


class NestedLearningError(Exception):
    """A mistake in the input, not in the program: one line without a traceback, then exit with `exit_code`."""

    exit_code = 2


class ConfigError(NestedLearningError):
    """A configuration key, value or option that cannot be used."""


class DataError(NestedLearningError):
    """Data that is missing, unreadable or too short."""


class CheckpointError(NestedLearningError):
    """A checkpoint that is missing, damaged, or made for something else."""


class SweepError(NestedLearningError):
    """Jobs of a sweep that failed, each with its own error."""


class ReplicaError(NestedLearningError):
    """Replicas on several processes that are no longer equal; the message names the tensor and the processes."""


class LostError(NestedLearningError):
    """Another process of the run has died or does not respond."""


class Stopped(KeyboardInterrupt):
    """Work that a signal stopped: `where` it is saved, and `resume`, how to continue it."""

    def __init__(self, where: str, resume: str) -> None:
        super().__init__(where, resume)
        self.where, self.resume = where, resume

    def __str__(self) -> str:
        return f"{self.where}; {self.resume}"


class DivergedError(NestedLearningError):
    """A loss or gradient that is not finite: the message names the step and the last good checkpoint."""


class FaultError(NestedLearningError):
    """An exception that nothing handles, which is a fault of this program; the message names the file to report."""

    exit_code = 1
