"""The options of `evals=`, any number of which run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError

if TYPE_CHECKING:
    from nested_learning.evals.by_position import ByPosition
    from nested_learning.evals.memory_pack import MemoryPack
    from nested_learning.evals.validation_pack import ValidationPack


@dataclass(kw_only=True)
class ValidationConfig:
    """Loss, bits per byte and accuracy on the validation rows, as during training; there is nothing to set."""

    name: str

    def build(self, data: DataConfig) -> "ValidationPack":
        """Return the pack for `data`."""
        from nested_learning.evals.validation_pack import ValidationPack

        return ValidationPack(data.batch_size, resets=data.resets)


@dataclass(kw_only=True)
class ByPositionConfig:
    """Loss by position in the context, up to `length_factor` times the training length, on `num_rows` rows.

    `batch_size` rows are read at once.
    """

    name: str
    length_factor: int
    num_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        _at_least_one(self.name, vars(self), ("length_factor", "num_rows", "batch_size"))

    def build(self, data: DataConfig) -> "ByPosition":
        """Return the pack for `data`."""
        from nested_learning.evals.by_position import ByPosition

        return ByPosition(self.length_factor, self.num_rows, self.batch_size)


@dataclass(kw_only=True)
class MemoryPackConfig:
    """What every memory does along the context: norm, effective rank, surprise, retention, on `num_rows` rows.

    The rows are `length_factor` times as long as those of training; `batch_size` of them are read at once.
    """

    name: str
    length_factor: int
    num_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        _at_least_one(self.name, vars(self), ("length_factor", "num_rows", "batch_size"))

    def build(self, data: DataConfig) -> "MemoryPack":
        """Return the pack for `data`."""
        from nested_learning.evals.memory_pack import MemoryPack

        return MemoryPack(self.length_factor, self.num_rows, self.batch_size)


def _at_least_one(name: str, values: dict[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        if values[key] < 1:
            raise ConfigError(f"evals.{name}.{key}={values[key]} must be at least 1")
