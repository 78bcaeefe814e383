"""`evals=mad`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.mad import Mad


@dataclass(kw_only=True)
class MadPackConfig(EvalConfig):
    """Test rows of data=mad, of each of `length_factors` times the trained length; compression has one length.

    `num_rows` of each length; `batch_size` of them are read at once.
    """

    length_factors: list[int]
    num_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_rows", "batch_size")
        if not self.length_factors or min(self.length_factors) < 1:
            raise ConfigError(
                f"evals.mad.length_factors={self.length_factors}: must be numbers from 1 on, such as [1,2]"
            )

    def build(self, data: DataConfig) -> "Mad":
        """Return the pack for `data`."""
        from nested_learning.evals.mad import Mad

        return Mad(self.length_factors, self.num_rows, self.batch_size)
