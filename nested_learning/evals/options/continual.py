"""`evals=continual`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.continual import Continual


@dataclass(kw_only=True)
class ContinualConfig(EvalConfig):
    """What weights forget: `num_rows` validation rows of every domain, read with the weights after each of them.

    `batch_size` rows are read at once.
    """

    num_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_rows", "batch_size")

    def build(self, data: DataConfig) -> "Continual":
        """Return the pack for `data`."""
        from nested_learning.evals.continual import Continual

        return Continual(self.num_rows, self.batch_size, resets=data.resets)
