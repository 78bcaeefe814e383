"""`data=sequence`: several domains, read one after the other, for continual learning."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from nested_learning.data.combined import CombinedConfig, CombinedSource
from nested_learning.data.mixture import Mixture
from nested_learning.data.source import DataConfig, Row, Source, require_at_least, require_one_of
from nested_learning.data.text.text import TextConfig
from nested_learning.data.text.tokens import TokensConfig
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.typed import PathText

ORDERS = ("forward", "reverse", "joint")


@dataclass(kw_only=True)
class SequenceConfig(CombinedConfig):
    """Domains: `sources`, each read for `steps_each` optimizer steps before the next one.

    `order`: forward; reverse; or joint, all domains mixed in equal shares, the usual baseline of continual learning.
    `segments`: split every source, which must be one text file, into this many consecutive domains.
    `folder`: relative paths of sources start here; null: the working directory.
    """

    name: str = "sequence"
    steps_each: int = 100
    order: str = "forward"
    segments: int | None = None
    folder: PathText | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, steps_each=self.steps_each)
        require_one_of(ORDERS, order=self.order)
        if self.segments is not None:
            require_at_least(2, segments=self.segments)
        if len(self.sources) * (self.segments or 1) < 2:
            raise ConfigError(
                "data=sequence: needs at least two domains; add to data.sources, or split one with data.segments=5"
            )

    def require_files(self, key: str = "data") -> None:
        """Raise DataError or ConfigError where a source does, or cannot be split."""
        for name, source in self._located().items():
            source.require_files(f"{key}.sources.{name}")
        self.domains()

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> CombinedSource:
        """Open all domains with one tokenizer. Raises DataError or ConfigError as they do."""
        domains = self.domains()
        opened = self.open_sources(domains, seed, tokenizer)
        if self.order == "joint":
            return Mixture(opened, dict.fromkeys(opened, 1), seed)
        # reversed only after opening: in any order the tokenizer is that of the first domain of the configuration
        names = list(opened)[::-1] if self.order == "reverse" else list(opened)
        return DomainSequence({name: opened[name] for name in names}, self.steps_each * self.batch_size, seed)

    def domains(self) -> dict[str, DataConfig]:
        """Return the domains by name, with complete paths. Raises ConfigError for a source that cannot be split."""
        domains: dict[str, DataConfig] = {}
        for name, source in self._located().items():
            domains |= {name: source} if self.segments is None else _split_file(name, source, self.segments)
        return domains

    def _located(self) -> dict[str, DataConfig]:
        """Return the sources with complete paths."""
        if self.folder is None:
            return self.sources
        return {name: _resolve_paths(self.folder, source) for name, source in self.sources.items()}


class DomainSequence(CombinedSource):
    """A Source that reads `rows_each` rows of each domain before the next one. One domain is one epoch.

    After the last domain the first one continues where it stopped. A domain read to its end starts over, in a new
    order. Validation reads the same number of rows of each domain.
    """

    def __init__(self, sources: Mapping[str, Source], rows_each: int, seed: int) -> None:
        super().__init__(sources, dict.fromkeys(sources, 1), seed, "sequence")
        self.rows_each, self.names = rows_each, list(self.sources)
        self.fingerprint = sha256(f"{rows_each} rows each of {self.fingerprint}".encode()).hexdigest()

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch: of training, the rows read of one domain."""
        return self.rows_each if split == "train" else sum(self.validation.values())

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of `epoch`: of training, of domain `epoch` modulo the number of domains."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        if split == "validation":
            return self.validation_row(index)
        round_, domain = divmod(epoch, len(self.names))
        return self.training_row(self.names[domain], round_ * self.rows_each + index)


def _resolve_paths(folder: str, source: DataConfig) -> DataConfig:
    """Return `source` with its relative paths taken from `folder`."""
    if isinstance(source, TokensConfig):
        return replace(source, path=_resolve(folder, source.path or ""))
    if not isinstance(source, TextConfig):
        return source
    if isinstance(source.path, list):
        return replace(source, path=[_resolve(folder, path) for path in source.path])
    return replace(source, path=_resolve(folder, source.path or ""))


def _resolve(folder: str, path: str) -> str:
    return str(Path(folder).expanduser() / Path(path).expanduser())


def _split_file(name: str, source: DataConfig, segments: int) -> dict[str, DataConfig]:
    """Split a text file into `segments` domains with equal numbers of bytes."""
    if not isinstance(source, TextConfig) or not isinstance(source.path, str):
        raise ConfigError(
            f"data.segments={segments}: data.sources.{name} must be one text file; use {{name: text, path: <a file>}}"
        )
    file = Path(source.path).expanduser()
    if not file.is_file():
        raise DataError(
            f"data.sources.{name}.path={source.path}: no such file; data.segments={segments} splits one text file"
        )
    start, end = source.span or (0, file.stat().st_size)
    # byte positions; `read_span` drops characters that an edge cuts
    edges = [start + (end - start) * part // segments for part in range(segments + 1)]
    return {f"{name}_{part + 1}": replace(source, span=[edges[part], edges[part + 1]]) for part in range(segments)}
