"""TensorBoard: event files in the run directory's own folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nested_learning.errors import ConfigError
from nested_learning.logger.protocol import Guarded, LoggedRun, Logger, Value

FOLDER = "tensorboard"


@dataclass(kw_only=True)
class TensorboardConfig:
    """TensorBoard needs no settings."""

    name: str

    def build(self, run: LoggedRun) -> Logger:
        """Open event files under `run.directory`; raise ConfigError when the package is missing."""
        return Guarded(self.name, lambda: TensorboardLogger(run))


class TensorboardLogger:
    """Writes scalars to `<run>/tensorboard`; read them with `tensorboard --logdir runs`."""

    def __init__(self, run: LoggedRun) -> None:
        # after a resume, TensorBoard hides what the stopped process wrote beyond the step it resumed from
        self._folder = str(run.directory / FOLDER)
        self._writer = _import()(self._folder, purge_step=run.start_step + 1 if run.start_step else None)

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Write the numbers of `values`."""
        for name, value in values.items():
            if not isinstance(value, str):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def rewind(self, step: int) -> None:
        """Start another event file, which hides the entries of the last one after `step`."""
        self._writer.close()
        self._writer = _import()(self._folder, purge_step=step + 1)

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def _import() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "logger=tensorboard needs the package tensorboard: pip install -e '.[tensorboard]'"
        ) from error
    return SummaryWriter
