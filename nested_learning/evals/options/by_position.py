"""`evals=by_position`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.by_position import ByPosition


@dataclass(kw_only=True)
class ByPositionConfig(EvalConfig):
    """Loss by position in the context, up to `length_factor` times the training length, on `num_rows` rows.

    `batch_size` rows are read at once.
    """

    length_factor: int
    num_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "length_factor", "num_rows", "batch_size")

    def build(self, data: DataConfig) -> "ByPosition":
        """Return the pack for `data`."""
        from nested_learning.evals.by_position import ByPosition

        return ByPosition(self.length_factor, self.num_rows, self.batch_size)
