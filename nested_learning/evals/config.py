"""The base class of the options of `evals=`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nested_learning.evals.protocol import EvalPack


@dataclass(kw_only=True)
class EvalConfig(ABC):
    """One option of `evals=`. It is checked without importing torch."""

    name: str

    @abstractmethod
    def build(self, data: DataConfig) -> "EvalPack":
        """Return the pack, for a model that is evaluated on `data`."""

    def at_least(self, least: int, *keys: str) -> None:
        """Raise ConfigError for the first of `keys` whose value is below `least`."""
        for key in keys:
            if vars(self)[key] < least:
                raise ConfigError(f"evals.{self.name}.{key}={vars(self)[key]} must be at least {least}")

    def one_of(self, allowed: tuple[str, ...], *keys: str) -> None:
        """Raise ConfigError for the first of `keys` whose value, or a value in it, is not `allowed`."""
        for key in keys:
            value = vars(self)[key]
            for word in [value] if isinstance(value, str) else value:
                if word not in allowed:
                    raise ConfigError(f"evals.{self.name}.{key}={word}: must be one of {', '.join(allowed)}")

    def file(self, path: str | None, what: str) -> Path:
        """Return the file or folder `path`; raise DataError where it is missing. `what` describes it in the message."""
        if path is None:
            raise DataError(
                f"evals.{self.name}.path is missing: {what}; set evals.{self.name}.path=<path>; "
                "docs/how-to.md, Data of evaluations, says where to get it"
            )
        if not Path(path).expanduser().exists():
            raise DataError(f"evals.{self.name}.path={path}: no such file or folder; it should be {what}")
        return Path(path).expanduser()
