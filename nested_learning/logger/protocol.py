"""The interface of loggers, and two that wrap others: several as one, and one that may fail."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from nested_learning.errors import ConfigError

Value = float | int | str
T = TypeVar("T")


@runtime_checkable
class Logger(Protocol):
    """Records the metrics of a step, such as `train/loss`, with `tokens` (read so far) and `split`."""

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Record `values` as of optimizer step `step`."""
        ...

    def rewind(self, step: int) -> None:
        """Drop what was logged after `step`, to which the run rolls back: later steps are logged again."""
        ...

    def close(self) -> None:
        """Flush and close; nothing is logged afterwards."""
        ...


class LoggedRun(NamedTuple):
    """The run that is logged.

    `directory` exists; `config` is the whole configuration as plain dicts; the next step is `start_step` + 1,
    the last one `total_steps`.
    """

    directory: Path
    name: str
    config: dict[str, Any]
    total_steps: int
    start_step: int


@runtime_checkable
class LoggerConfig(Protocol):
    """An option of the logger group."""

    name: str

    def build(self, run: LoggedRun) -> Logger:
        """Open the logger for `run`; raise ConfigError when its package is missing."""
        ...


class Fanout:
    """Several loggers as one; with none it is silent, as on every rank but the first."""

    def __init__(self, loggers: Sequence[Logger] = ()) -> None:
        self.loggers = tuple(loggers)

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Record `values` with every logger."""
        for logger in self.loggers:
            logger.log(step, values)

    def rewind(self, step: int) -> None:
        """Rewind every logger to `step`."""
        for logger in self.loggers:
            logger.rewind(step)

    def close(self) -> None:
        """Close every logger."""
        for logger in self.loggers:
            logger.close()


class Guarded:
    """A logger that may fail without stopping the run: the first failure is printed on stderr and turns it off."""

    def __init__(self, name: str, open_logger: Callable[[], Logger]) -> None:
        """Open the logger, guarded too, except for a ConfigError: that is for the user, before anything is trained."""
        self.name = name
        self._logger: Logger | None = self._guard(open_logger)

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Record `values`, unless it has failed before."""
        if (logger := self._logger) is not None:
            self._guard(lambda: logger.log(step, values))

    def rewind(self, step: int) -> None:
        """Rewind to `step`, unless the logger has failed before."""
        if (logger := self._logger) is not None:
            self._guard(lambda: logger.rewind(step))

    def close(self) -> None:
        """Close the logger, unless it has failed before."""
        if (logger := self._logger) is not None:
            self._guard(logger.close)

    def _guard(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except ConfigError:
            raise
        # a tracking service can fail in any way, and none of them should stop a training run
        except Exception as error:  # noqa: BLE001
            self._logger = None
            reason = str(error).strip().split("\n")[0]
            print(
                f"warning: logger={self.name} failed and is off for the rest of this run, which continues: "
                f"{type(error).__name__}: {reason}",
                file=sys.stderr,
            )
            return None
