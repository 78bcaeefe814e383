"""`evals=continual_memory`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.continual_memory import ContinualMemory


@dataclass(kw_only=True)
class ContinualMemoryConfig(EvalConfig):
    """What memories forget: `num_streams` readers read `num_rows` rows of every domain, one domain after the other.

    After each, `val_rows` validation rows of all domains are read; `batch_size` readers work at once.
    """

    num_streams: int
    num_rows: int
    val_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_streams", "num_rows", "val_rows", "batch_size")

    def build(self, data: DataConfig) -> "ContinualMemory":
        """Return the pack for `data`."""
        from nested_learning.evals.continual_memory import ContinualMemory

        return ContinualMemory(self.num_streams, self.num_rows, self.val_rows, self.batch_size)
