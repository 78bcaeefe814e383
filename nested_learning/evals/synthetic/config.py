"""Options of the packs on synthetic tasks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nested_learning.data.source import DataConfig
from nested_learning.data.tasks.formal import FormalConfig
from nested_learning.data.tasks.mad import MadConfig
from nested_learning.data.tasks.recall import RecallConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.config import EvalConfig, require_data
from nested_learning.typed import Count

if TYPE_CHECKING:
    from nested_learning.evals.synthetic.formal import Formal
    from nested_learning.evals.synthetic.mad import Mad
    from nested_learning.evals.synthetic.recall import Recall


@dataclass(kw_only=True)
class RecallPackConfig(EvalConfig):
    """Versions of data=recall: all `gaps` (tokens), numbers of `pairs`, and numbers of `changed` keys.

    `gaps`, `pairs`: None is the trained value. There are `num_rows` rows of each version, `batch_size` at once.
    """

    gaps: list[int] | None
    pairs: list[int] | None
    changed: list[int]
    num_rows: Count
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_rows", "batch_size")
        least = {"gaps": (self.gaps, 0), "pairs": (self.pairs, 1), "changed": (self.changed, 0)}
        for key, (values, minimum) in least.items():
            if values is not None and (not values or min(values) < minimum):
                raise ConfigError(f"evals.recall.{key}={values}: must be numbers of at least {minimum}, such as [4,8]")

    def require_inputs(self, data: DataConfig) -> None:
        """Raise ConfigError for other data than recall."""
        require_data(data, RecallConfig, "recall", "recall")

    def build(self, data: DataConfig) -> "Recall":
        """Return the pack for `data`."""
        from nested_learning.evals.synthetic.recall import Recall

        return Recall(self.gaps, self.pairs, self.changed, self.num_rows, self.batch_size)


@dataclass(kw_only=True)
class MadPackConfig(EvalConfig):
    """Test rows of data=mad, of each of `length_factors` times the trained length; compression has one length.

    There are `num_rows` rows of each length; `batch_size` are read at once.
    """

    memorizes_while_reading: ClassVar[bool] = True

    length_factors: list[int]
    num_rows: Count
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_rows", "batch_size")
        if not self.length_factors or min(self.length_factors) < 1:
            raise ConfigError(
                f"evals.mad.length_factors={self.length_factors}: must be numbers of at least 1, such as [1,2]"
            )

    def require_inputs(self, data: DataConfig) -> None:
        """Raise ConfigError for other data than mad."""
        require_data(data, MadConfig, "mad", "mad")

    def build(self, data: DataConfig) -> "Mad":
        """Return the pack for `data`."""
        from nested_learning.evals.synthetic.mad import Mad

        return Mad(self.length_factors, self.num_rows, self.batch_size)


@dataclass(kw_only=True)
class FormalPackConfig(EvalConfig):
    """Words of the language of data=formal in `bins` of lengths, each [shortest, longest].

    `bins` None: the trained lengths, and from there up to twice the longest. There are `num_rows` words of each bin;
    `batch_size` are read at once.
    """

    memorizes_while_reading: ClassVar[bool] = True

    bins: list[list[int]] | None
    num_rows: Count
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_rows", "batch_size")
        if self.bins is not None and not (self.bins and all(map(_is_range, self.bins))):
            raise ConfigError(
                f"evals.formal.bins={self.bins}: must be shortest and longest words, such as [[2,40],[41,80]]"
            )

    def require_inputs(self, data: DataConfig) -> None:
        """Raise ConfigError for other data than formal."""
        require_data(data, FormalConfig, "formal", "formal")

    def build(self, data: DataConfig) -> "Formal":
        """Return the pack for `data`."""
        from nested_learning.evals.synthetic.formal import Formal

        return Formal(self.bins, self.num_rows, self.batch_size)


def _is_range(bounds: list[int]) -> bool:
    return len(bounds) == 2 and 1 <= bounds[0] <= bounds[1]
