"""`evals=memory`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.memory_pack import MemoryPack


@dataclass(kw_only=True)
class MemoryPackConfig(EvalConfig):
    """What every memory does along the context: norm, effective rank, surprise, retention, on `num_rows` rows.

    The rows are `length_factor` times as long as those of training; `batch_size` of them are read at once.
    """

    length_factor: int
    num_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "length_factor", "num_rows", "batch_size")

    def build(self, data: DataConfig) -> "MemoryPack":
        """Return the pack for `data`."""
        from nested_learning.evals.memory_pack import MemoryPack

        return MemoryPack(self.length_factor, self.num_rows, self.batch_size)
