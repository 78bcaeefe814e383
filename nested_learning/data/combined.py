"""Several sources of text that one model reads, in one tokenizer: what a mixture and a sequence of them share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from hashlib import sha256

import numpy as np

from nested_learning.data.order import Positions, endless_order
from nested_learning.data.source import DataConfig, Row, Source
from nested_learning.data.text.packed import PackingConfig
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError
from nested_learning.seeds import derive_seed

# of a source, rows whose order is worked out at once
BLOCK = 1024
# what all sources have in common, and is set for the whole
SHARED = ("batch_size", "val_rows", "seq_len", "packing", "boundary")


@dataclass(kw_only=True)
class CombinedConfig(PackingConfig):
    """Text or tokens from several `sources`, named options of `data=` with their own keys.

    The tokenizer is that of the first.
    """

    sources: dict[str, DataConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise ConfigError(
                f"data={self.name}: data.sources is empty; give e.g. "
                "'data.sources={code:{name:stdlib},notes:{name:text,path:docs}}'"
            )
        for name, source in self.sources.items():
            self._check(name, source)

    def open_sources(
        self, sources: Mapping[str, DataConfig], seed: int, tokenizer: Tokenizer | None
    ) -> dict[str, Source]:
        """Open `sources` in rows of the whole and in one tokenizer. Raises DataError or ConfigError as they do."""
        shared = {key: vars(self)[key] for key in SHARED}
        opened: dict[str, Source] = {}
        for name, config in sources.items():
            opened[name] = replace(config, **shared).build(seed, tokenizer)
            tokenizer = opened[name].tokenizer
        return opened

    def _check(self, name: str, source: DataConfig) -> None:
        if not isinstance(source, PackingConfig) or isinstance(source, CombinedConfig):
            raise ConfigError(
                f"data.sources.{name}.name={source.name}: a {self.name} is of text or tokens; use stdlib, text or "
                "tokens"
            )
        usual = {each.name: each.default for each in fields(source)}
        for key in SHARED:
            if vars(source)[key] not in (usual[key], vars(self)[key]):
                raise ConfigError(
                    f"data.sources.{name}.{key}={vars(source)[key]}: is that of the whole {self.name}; use data.{key}="
                )


class CombinedSource(ABC):
    """Sources that one model reads, each in its own endless order; `weights` are their shares, by name.

    Validation reads of each source its share. `kind` is what they make together, and keys their orders with the seed.
    """

    def __init__(self, sources: Mapping[str, Source], weights: Mapping[str, float | int], seed: int, kind: str) -> None:
        self.sources, self._key = dict(sources), (seed, kind)
        first = next(iter(self.sources.values()))
        self.vocab_size, self.seq_len, self.tokenizer = first.vocab_size, first.seq_len, first.tokenizer
        self.weights = {name: weights[name] / sum(weights.values()) for name in self.sources}
        self.validation = self._count_validation()
        parts = [(name, self.weights[name], source.fingerprint) for name, source in self.sources.items()]
        self.fingerprint = sha256(repr(parts).encode()).hexdigest()
        self._rows_of_block = lru_cache(maxsize=256)(self._find_block)

    @abstractmethod
    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""

    @abstractmethod
    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of an epoch."""

    def training_row(self, name: str, place: int) -> Row:
        """Return the row at `place` of the endless order of the source `name`; read through, it begins anew."""
        block, inside = divmod(place, BLOCK)
        epochs, indices = self._rows_of_block(name, block)
        return self.sources[name].row("train", int(epochs[inside]), int(indices[inside]))

    def validation_row(self, index: int) -> Row:
        """Return validation row `index`: the first belong to the first source, and so on."""
        name, index = locate(self.validation, index)
        source = self.sources[name]
        return source.row("validation", 0, index * source.num_rows("validation") // self.validation[name])

    def _find_block(self, name: str, block: int) -> tuple[Positions, Positions]:
        """Return the epochs and the rows that come up at BLOCK places of a source's own endless order."""
        places = np.arange(block * BLOCK, (block + 1) * BLOCK)
        seed, kind = self._key
        return endless_order(derive_seed(seed, kind, name), self.sources[name].num_rows("train"), places)

    def _count_validation(self) -> dict[str, int]:
        """Return how many rows of each source are for validation: as many as there are in the shares of the whole."""
        available = {name: source.num_rows("validation") for name, source in self.sources.items()}
        whole = min(available[name] / self.weights[name] for name in self.sources)
        return {name: max(1, int(whole * weight)) for name, weight in self.weights.items()}


def locate(counts: Mapping[str, int], index: int) -> tuple[str, int]:
    """Return whose thing `index` is, where each name has so many, one after the other, and which of its own it is."""
    for name, count in counts.items():
        if index < count:
            return name, index
        index -= count
    raise AssertionError("there are not so many")


def rows_by_source(source: Source, num_rows: int) -> dict[str, tuple[Source, int]]:
    """Return by name the sources that `source` is made of and how many of `num_rows` rows are of each, at least one.

    A source that is one has no name: "".
    """
    if not isinstance(source, CombinedSource):
        return {"": (source, num_rows)}
    return {name: (source.sources[name], max(1, count)) for name, count in apportion(source.weights, num_rows).items()}


def apportion(weights: Mapping[str, float | int], number: int) -> dict[str, int]:
    """Divide `number` things in the proportion of `weights`, what is left to the largest remainders."""
    whole = sum(weights.values())
    exact = {name: weight / whole * number for name, weight in weights.items()}
    counts = {name: int(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: number - sum(counts.values())]:
        counts[name] += 1
    return counts
