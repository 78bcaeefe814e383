"""`evals=recall`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.recall import Recall


@dataclass(kw_only=True)
class RecallPackConfig(EvalConfig):
    """Harder versions of data=recall: every one of `gaps` (tokens), numbers of `pairs`, and of keys that are `changed`.

    `gaps`, `pairs`: None is what was trained. `num_rows` of each version; `batch_size` of them are read at once.
    """

    gaps: list[int] | None
    pairs: list[int] | None
    changed: list[int]
    num_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_rows", "batch_size")
        least = {"gaps": (self.gaps, 0), "pairs": (self.pairs, 1), "changed": (self.changed, 0)}
        for key, (values, minimum) in least.items():
            if values is not None and (not values or min(values) < minimum):
                raise ConfigError(f"evals.recall.{key}={values}: must be numbers of at least {minimum}, such as [4,8]")

    def build(self, data: DataConfig) -> "Recall":
        """Return the pack for `data`."""
        from nested_learning.evals.recall import Recall

        return Recall(self.gaps, self.pairs, self.changed, self.num_rows, self.batch_size)
