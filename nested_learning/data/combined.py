"""Several text sources with one tokenizer, combined into one source: what `mixture` and `sequence` share."""

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

# rows whose order is computed in one call and cached, so that numpy's overhead is paid once per block, not per row
BLOCK = 1024
# keys that are set once for all sources
SHARED = ("batch_size", "val_rows", "seq_len", "packing", "boundary")


@dataclass(kw_only=True)
class CombinedConfig(PackingConfig):
    """Text or token shards from several `sources`: by a name of one's own, an option of `data=` and its keys.

    All are read with the tokenizer of the first.
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

    def require_files(self, key: str = "data") -> None:
        """Raise DataError or ConfigError where a source does."""
        for name, source in self.sources.items():
            source.require_files(f"{key}.sources.{name}")

    def require_tokenizer(self, key: str = "data") -> None:
        """Raise ConfigError or DataError where that of the first source cannot be opened."""
        name, first = next(iter(self.sources.items()))
        first.require_tokenizer(f"{key}.sources.{name}")

    def open_sources(
        self, sources: Mapping[str, DataConfig], seed: int, tokenizer: Tokenizer | None
    ) -> dict[str, Source]:
        """Open `sources` with the shared keys of this config and one tokenizer.

        Raises DataError or ConfigError as they do.
        """
        shared = {key: vars(self)[key] for key in SHARED}
        opened: dict[str, Source] = {}
        for name, config in sources.items():
            # the first source makes the tokenizer unless a trained model brings one; the others are given it
            opened[name] = replace(config, **shared).build(seed, tokenizer)
            tokenizer = opened[name].tokenizer
        return opened

    def _check(self, name: str, source: DataConfig) -> None:
        if not isinstance(source, PackingConfig) or isinstance(source, CombinedConfig):
            raise ConfigError(
                f"data.sources.{name}.name={source.name}: a source of data={self.name} must be text; use stdlib, text "
                "or tokens"
            )
        # a source's own default may differ from the shared value; only what the user wrote there is refused
        usual = {each.name: each.default for each in fields(source)}
        for key in SHARED:
            if vars(source)[key] not in (usual[key], vars(self)[key]):
                raise ConfigError(
                    f"data.sources.{name}.{key}={vars(source)[key]}: is set once for all sources; use data.{key}="
                )


class CombinedSource(ABC):
    """A Source made of `sources`, each read in its own endless order, in the proportion of `weights` (by name).

    Validation rows are in the same proportion. `kind`, mixture or sequence, and `seed` key the orders of the sources.
    """

    def __init__(self, sources: Mapping[str, Source], weights: Mapping[str, float | int], seed: int, kind: str) -> None:
        self.sources, self._key = dict(sources), (seed, kind)
        first = next(iter(self.sources.values()))
        self.vocab_size, self.seq_len, self.tokenizer = first.vocab_size, first.seq_len, first.tokenizer
        self.weights = {name: weights[name] / sum(weights.values()) for name in self.sources}
        self.validation = self._count_validation()
        parts = [(name, self.weights[name], source.fingerprint) for name, source in self.sources.items()]
        self.fingerprint = sha256(repr(parts).encode()).hexdigest()
        self._order_of_block = lru_cache(maxsize=256)(self._compute_block)

    @abstractmethod
    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""

    @abstractmethod
    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of `epoch`."""

    def training_row(self, name: str, position: int) -> Row:
        """Return the row at `position` of the endless order of the source `name`."""
        block, inside = divmod(position, BLOCK)
        epochs, indices = self._order_of_block(name, block)
        return self.sources[name].row("train", int(epochs[inside]), int(indices[inside]))

    def validation_row(self, index: int) -> Row:
        """Return validation row `index`: indices count through the rows of the first source, then the second, ..."""
        name, index = locate(self.validation, index)
        source = self.sources[name]
        # evenly spaced over the source's own validation rows
        return source.row("validation", 0, index * source.num_rows("validation") // self.validation[name])

    def _compute_block(self, name: str, block: int) -> tuple[Positions, Positions]:
        """Return the epochs and the row indices at BLOCK positions of the endless order of the source `name`."""
        positions = np.arange(block * BLOCK, (block + 1) * BLOCK)
        seed, kind = self._key
        return endless_order(derive_seed(seed, kind, name), self.sources[name].num_rows("train"), positions)

    def _count_validation(self) -> dict[str, int]:
        """Count the validation rows of each source: as many as exist in the proportion of `weights`, at least one."""
        available = {name: source.num_rows("validation") for name, source in self.sources.items()}
        # the source that runs out first limits all others
        total = min(available[name] / self.weights[name] for name in self.sources)
        return {name: max(1, int(total * weight)) for name, weight in self.weights.items()}


def locate(counts: Mapping[str, int], index: int) -> tuple[str, int]:
    """Return the name that `index` falls to when `counts` are laid end to end, and the index within that name."""
    for name, count in counts.items():
        if index < count:
            return name, index
        index -= count
    raise AssertionError("index is beyond the sum of all counts")


def rows_by_source(source: Source, num_rows: int) -> dict[str, tuple[Source, int]]:
    """Return the sources that `source` combines, by name, and how many of `num_rows` rows each provides (at least one).

    A source that is not combined has the name "".
    """
    if not isinstance(source, CombinedSource):
        return {"": (source, num_rows)}
    return {name: (source.sources[name], max(1, count)) for name, count in apportion(source.weights, num_rows).items()}


def apportion(weights: Mapping[str, float | int], number: int) -> dict[str, int]:
    """Divide `number` items in the proportion of `weights`: rounded down, then one more for the largest remainders."""
    total = sum(weights.values())
    exact = {name: weight / total * number for name, weight in weights.items()}
    counts = {name: int(count) for name, count in exact.items()}
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[: number - sum(counts.values())]:
        counts[name] += 1
    return counts
