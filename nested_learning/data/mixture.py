"""`data=mixture`: several sources, each with its share of the rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nested_learning.data.combined import CombinedConfig, CombinedSource, apportion, locate
from nested_learning.data.source import Row, Source
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError

# rows after which every source has had its share, to the row: the unit that a mixture calls an epoch
EPOCH_ROWS = 10_000


@dataclass(kw_only=True)
class MixtureConfig(CombinedConfig):
    """Several `sources`, mixed. `weights`: by the same names, how much of what is read is of each, in any unit."""

    name: str = "mixture"
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sources.keys() != self.weights.keys():
            raise ConfigError(
                f"data.weights: names {', '.join(self.weights) or 'nothing'}, but the sources are "
                f"{', '.join(self.sources)}; give 'data.weights={{{','.join(f'{name}:1' for name in self.sources)}}}'"
            )
        for name, number in zip(self.weights, apportion(self.weights, EPOCH_ROWS).values(), strict=True):
            if not number:
                raise ConfigError(
                    f"data.weights.{name}={self.weights[name]}: must be more than 0, and its share at least one row in "
                    f"{EPOCH_ROWS}; leave {name} out, or raise it"
                )

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "Mixture":
        """Open all sources in one tokenizer. Raises DataError or ConfigError as they do."""
        return Mixture(self.open_sources(self.sources, seed, tokenizer), self.weights, seed)


class Mixture(CombinedSource):
    """A Source that reads each of `sources` in its own endless order, and `weights` says how often which.

    In every epoch, `EPOCH_ROWS` rows, each source has exactly its share; which rows of the epoch are its is drawn with
    the order of rows. A source that is read through begins anew, in another order.
    """

    def __init__(self, sources: Mapping[str, Source], weights: Mapping[str, float | int], seed: int) -> None:
        super().__init__(sources, weights, seed, "mixture")
        self.counts = {"train": apportion(self.weights, EPOCH_ROWS), "validation": self.validation}

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        return sum(self.counts[split].values())

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of an epoch: the first belong to the first source, and so on."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        if split == "validation":
            return self.validation_row(index)
        name, index = locate(self.counts[split], index)
        return self.training_row(name, epoch * self.counts[split][name] + index)
