"""The base class of the options of `evals=`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from nested_learning.data.source import DataConfig
from nested_learning.data.text.readers import Input, Reader, find_inputs
from nested_learning.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nested_learning.evals.protocol import EvalPack

D = TypeVar("D", bound=DataConfig)


@dataclass(kw_only=True)
class EvalConfig(ABC):
    """One option of `evals=`. It is checked without importing torch."""

    # whether texts are memorized while they are read, which takes a level that a plain forward pass does not update
    memorizes_while_reading: ClassVar[bool] = False

    name: str

    def require_inputs(self, data: DataConfig) -> None:  # noqa: B027 (some packs need nothing)
        """Raise ConfigError for `data` of a kind that the pack cannot read, DataError for files that are missing.

        All packs are asked before torch is loaded, so that no mistake costs the work of the packs before it.
        """

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
        """Return the file `path`; raise DataError where there is none. `what` describes it in the message."""
        found = self.file_or_folder(path, what)
        if found.is_dir():
            raise DataError(f"evals.{self.name}.path={path}: is a folder; it should be {what}")
        return found

    def file_or_folder(self, path: str | None, what: str) -> Path:
        """Return the file or folder `path`; raise DataError where there is none. `what` describes it in the message."""
        # an empty path would be the working directory
        if not path:
            raise DataError(
                f"evals.{self.name}.path is missing: {what}; set evals.{self.name}.path=<path>; "
                "docs/how-to.md, Data of evaluations, says where to get it"
            )
        found = Path(path).expanduser()
        # a pipe or a device is neither, and reading it might never end
        if not (found.is_file() or found.is_dir()):
            raise DataError(f"evals.{self.name}.path={path}: no such file or folder; it should be {what}")
        return found

    def inputs(self, key: str) -> list[Input]:
        """Return the inputs in the file, folder, glob or data set of option `key`; raise ConfigError without any."""
        try:
            return find_inputs([vars(self)[key]])
        except ConfigError as error:
            raise ConfigError(f"evals.{self.name}.{key}={error}") from error

    def texts(self, key: str) -> list[str]:
        """Return the texts that the option `key` names; raise ConfigError or DataError without any."""
        found = [text for each in self.inputs(key) for text in Reader().read(each.name) if text]
        if not found:
            raise DataError(f"evals.{self.name}.{key}={vars(self)[key]}: no text there, it is empty or not utf-8")
        return found


def require_data(data: DataConfig, kind: type[D], pack: str, needed: str) -> D:
    """Return `data`, which must be of the `kind` that `pack` is about, data=`needed`; raise ConfigError for another."""
    if not isinstance(data, kind):
        raise ConfigError(
            f"evals={pack}: the checkpoint was trained on data={data.name}; use one trained on data={needed}"
        )
    return data
