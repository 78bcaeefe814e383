"""`evals=formal`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.formal import Formal


@dataclass(kw_only=True)
class FormalPackConfig(EvalConfig):
    """Words of the language of data=formal in `bins` of lengths, each [shortest, longest]; None is the default of two.

    These are the trained lengths, and from there up to twice the longest. `num_rows` words of each bin; `batch_size` of
    them are read at once.
    """

    bins: list[list[int]] | None
    num_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_rows", "batch_size")
        if self.bins is not None and not (self.bins and all(map(_is_range, self.bins))):
            raise ConfigError(
                f"evals.formal.bins={self.bins}: must be shortest and longest words, such as [[2,40],[41,80]]"
            )

    def build(self, data: DataConfig) -> "Formal":
        """Return the pack for `data`."""
        from nested_learning.evals.formal import Formal

        return Formal(self.bins, self.num_rows, self.batch_size)


def _is_range(bounds: list[int]) -> bool:
    return len(bounds) == 2 and 1 <= bounds[0] <= bounds[1]
