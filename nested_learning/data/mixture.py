"""`data=mixture`: several sources, each with its share of the rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from hashlib import sha256

import numpy as np

from nested_learning.data.order import Places, in_order
from nested_learning.data.packed import RowsConfig
from nested_learning.data.source import DataConfig, Row, Source
from nested_learning.data.tokenizer import Tokenizer
from nested_learning.errors import ConfigError
from nested_learning.seeds import derive_seed

# rows after which every source has had its share, to the row: the unit that a mixture calls an epoch
EPOCH_ROWS = 10_000
# of a source, rows whose order is worked out at once
BLOCK = 1024
# what all sources of a mixture have in common, and is set for the mixture
SHARED = ("batch_size", "val_rows", "seq_len", "packing", "boundary")


@dataclass(kw_only=True)
class MixtureConfig(RowsConfig):
    """Text or tokens from several `sources`, named options of `data=` with their own keys.

    `weights`: by the same names, how much of what is read is of each, in any unit. The tokenizer is that of the first.
    """

    name: str = "mixture"
    sources: dict[str, DataConfig] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise ConfigError(
                "data=mixture: data.sources is empty; give e.g. 'data.sources={code:{name:stdlib},"
                "notes:{name:text,path:docs}}' 'data.weights={code:3,notes:1}'"
            )
        for name, source in self.sources.items():
            self._check(name, source)
        if self.sources.keys() != self.weights.keys():
            raise ConfigError(
                f"data.weights: names {', '.join(self.weights) or 'nothing'}, but the sources are "
                f"{', '.join(self.sources)}; give 'data.weights={{{','.join(f'{name}:1' for name in self.sources)}}}'"
            )
        for name, number in zip(self.weights, allot(self.weights, EPOCH_ROWS).values(), strict=True):
            if not number:
                raise ConfigError(
                    f"data.weights.{name}={self.weights[name]}: must be more than 0, and its share at least one row in "
                    f"{EPOCH_ROWS}; leave {name} out, or raise it"
                )

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "Mixture":
        """Open all sources in one tokenizer. Raises DataError or ConfigError as they do."""
        shared = {key: vars(self)[key] for key in SHARED}
        sources: dict[str, Source] = {}
        for name, config in self.sources.items():
            sources[name] = replace(config, **shared).build(seed, tokenizer)
            tokenizer = sources[name].tokenizer
        return Mixture(sources, self.weights, seed)

    def _check(self, name: str, source: DataConfig) -> None:
        if not isinstance(source, RowsConfig) or isinstance(source, MixtureConfig):
            raise ConfigError(
                f"data.sources.{name}.name={source.name}: a mixture is of text or tokens; use stdlib, text or tokens"
            )
        usual = {each.name: each.default for each in fields(source)}
        for key in SHARED:
            if vars(source)[key] not in (usual[key], vars(self)[key]):
                raise ConfigError(
                    f"data.sources.{name}.{key}={vars(source)[key]}: is that of the whole mixture; use data.{key}="
                )


class Mixture:
    """A Source that reads each of `sources` in its own endless order, and `weights` says how often which.

    In every epoch, `EPOCH_ROWS` rows, each source has exactly its share; which rows of the epoch are its is drawn with
    the order of rows. A source that is read through begins anew, in another order.
    """

    def __init__(self, sources: Mapping[str, Source], weights: Mapping[str, float | int], seed: int) -> None:
        self.sources, self._seed = dict(sources), seed
        first = next(iter(self.sources.values()))
        self.vocab_size, self.seq_len, self.tokenizer = first.vocab_size, first.seq_len, first.tokenizer
        self.weights = {name: weights[name] / sum(weights.values()) for name in self.sources}
        self.counts = {"train": allot(self.weights, EPOCH_ROWS), "validation": self._count_validation()}
        parts = [(name, self.weights[name], source.fingerprint) for name, source in self.sources.items()]
        self.fingerprint = sha256(repr(parts).encode()).hexdigest()
        self._rows_of_block = lru_cache(maxsize=256)(self._find_block)

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        return sum(self.counts[split].values())

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of an epoch: the first belong to the first source, and so on."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        name, index = self._find_source(split, index)
        count = self.counts[split][name]
        source = self.sources[name]
        if split == "validation":
            return source.row(split, 0, index * source.num_rows(split) // count)
        block, place = divmod(epoch * count + index, BLOCK)
        epochs, indices = self._rows_of_block(name, block)
        return source.row(split, int(epochs[place]), int(indices[place]))

    def _find_source(self, split: str, index: int) -> tuple[str, int]:
        """Return whose row `index` of an epoch is, and which of its own it is."""
        for name, count in self.counts[split].items():
            if index < count:
                return name, index
            index -= count
        raise AssertionError("an epoch has no such row")

    def _find_block(self, name: str, block: int) -> tuple[Places, Places]:
        """Return the epochs and the rows that come up at BLOCK places of a source's own endless order."""
        places = np.arange(block * BLOCK, (block + 1) * BLOCK)
        return in_order(derive_seed(self._seed, "mixture", name), self.sources[name].num_rows("train"), places)

    def _count_validation(self) -> dict[str, int]:
        """Return how many rows of each source are for validation: as many as there are in the shares of the mixture."""
        available = {name: source.num_rows("validation") for name, source in self.sources.items()}
        whole = min(available[name] / self.weights[name] for name in self.sources)
        return {name: max(1, int(whole * weight)) for name, weight in self.weights.items()}


def shares(source: Source, num_rows: int) -> dict[str, tuple[Source, int]]:
    """Return by name the sources that `source` mixes and how many of `num_rows` rows are of each, at least one.

    A source that mixes nothing has no name: "".
    """
    if not isinstance(source, Mixture):
        return {"": (source, num_rows)}
    return {name: (source.sources[name], max(1, count)) for name, count in allot(source.weights, num_rows).items()}


def allot(weights: Mapping[str, float | int], number: int) -> dict[str, int]:
    """Divide `number` things in the proportion of `weights`, what is left to the largest remainders. Source: ours."""
    whole = sum(weights.values())
    exact = {name: weight / whole * number for name, weight in weights.items()}
    counts = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: number - sum(counts.values())]:
        counts[name] += 1
    return counts
