"""The options of `evals=`, any number of which run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.errors import ConfigError

if TYPE_CHECKING:
    from nested_learning.evals.by_position import ByPosition
    from nested_learning.evals.validation_pack import ValidationPack


@dataclass(kw_only=True)
class ValidationConfig:
    """Loss, bits per byte and accuracy on the validation rows, as during training; there is nothing to set."""

    name: str

    def build(self) -> "ValidationPack":
        """Return the pack."""
        from nested_learning.evals.validation_pack import ValidationPack

        return ValidationPack()


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
        for key in ("length_factor", "num_rows", "batch_size"):
            if vars(self)[key] < 1:
                raise ConfigError(f"evals.{self.name}.{key}={vars(self)[key]} must be at least 1")

    def build(self) -> "ByPosition":
        """Return the pack."""
        from nested_learning.evals.by_position import ByPosition

        return ByPosition(self.length_factor, self.num_rows, self.batch_size)
