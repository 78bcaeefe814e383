"""`data=mixture`: several sources mixed in fixed proportions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from nested_learning.data.combined import CombinedConfig, CombinedSource, apportion, locate
from nested_learning.data.source import Row, Source
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError

# rows of an epoch of a mixture, in which each source has exactly its share of the rows
EPOCH_ROWS = 10_000


@dataclass(kw_only=True)
class MixtureConfig(CombinedConfig):
    """Several `sources`, mixed. `weights`: relative number of rows of each source, by the same names, in any unit."""

    name: str = "mixture"
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sources.keys() != self.weights.keys():
            raise ConfigError(
                f"data.weights: names {', '.join(self.weights) or 'nothing'}, but the sources are "
                f"{', '.join(self.sources)}; give 'data.weights={{{','.join(f'{name}:1' for name in self.sources)}}}'"
            )
        for name, weight in self.weights.items():
            is_weight = 1e-100 < weight <= sum(self.weights.values()) < math.inf
            if not (is_weight and apportion(self.weights, EPOCH_ROWS)[name]):
                raise ConfigError(
                    f"data.weights.{name}={weight}: must be positive and give at least one row in {EPOCH_ROWS}; "
                    f"change it, or remove {name}"
                )

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "Mixture":
        """Open all sources with one tokenizer. Raises DataError or ConfigError as they do."""
        return Mixture(self.open_sources(self.sources, seed, tokenizer), self.weights, seed)


class Mixture(CombinedSource):
    """A Source that mixes the rows of `sources` in the proportion of `weights`.

    Every epoch of `EPOCH_ROWS` rows holds exactly the same number of rows of each source; the permutation of the epoch
    spreads them. Each source is read in its own endless order: after its last row it starts over, in a new order.
    """

    def __init__(self, sources: Mapping[str, Source], weights: Mapping[str, float | int], seed: int) -> None:
        super().__init__(sources, weights, seed, "mixture")
        self.counts = {"train": apportion(self.weights, EPOCH_ROWS), "validation": self.validation}

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        return sum(self.counts[split].values())

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of `epoch`: indices count through the rows of the first source, then the second, ..."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        if split == "validation":
            return self.validation_row(index)
        name, index = locate(self.counts[split], index)
        # every epoch continues each source's own order where the epoch before stopped
        return self.training_row(name, epoch * self.counts[split][name] + index)
