"""`data=sequence`: several domains, read one after the other."""

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

ORDERS = ("forward", "reverse", "joint")


@dataclass(kw_only=True)
class SequenceConfig(CombinedConfig):
    """Domains: `sources`, each read for `steps_each` optimizer steps before the next begins.

    `order`: forward, as they stand; reverse; or joint, all of them at once in equal shares, which is what a sequence is
    compared with. `segments`: every source, a text file, is cut into so many domains, from its beginning to its end.
    `folder`: where paths of sources begin that are not absolute; null is here.
    """

    name: str = "sequence"
    steps_each: int = 100
    order: str = "forward"
    segments: int | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, steps_each=self.steps_each)
        require_one_of(ORDERS, order=self.order)
        if self.segments is not None:
            require_at_least(2, segments=self.segments)
        if len(self.sources) * (self.segments or 1) < 2:
            raise ConfigError(
                "data=sequence: one domain is no sequence; give more of data.sources, or data.segments=5, parts of it"
            )

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> CombinedSource:
        """Open all domains in one tokenizer. Raises DataError or ConfigError as they do."""
        domains = self.domains()
        opened = self.open_sources(domains, seed, tokenizer)
        if self.order == "joint":
            return Mixture(opened, dict.fromkeys(opened, 1), seed)
        # the tokenizer is that of the first whatever the order
        names = list(opened)[::-1] if self.order == "reverse" else list(opened)
        return DomainSequence({name: opened[name] for name in names}, self.steps_each * self.batch_size, seed)

    def domains(self) -> dict[str, DataConfig]:
        """Return the domains by name, their paths complete. Raises ConfigError for a source that cannot be cut."""
        found: dict[str, DataConfig] = {}
        for name, source in self.sources.items():
            placed = source if self.folder is None else _place(self.folder, source)
            found |= {name: placed} if self.segments is None else _cut(name, placed, self.segments)
        return found


class DomainSequence(CombinedSource):
    """A Source of domains that are read one after the other, `rows_each` rows of each; an epoch is a domain.

    After the last domain the first goes on where it was left. A domain that is read through begins anew, in another
    order. Validation reads as many rows of each.
    """

    def __init__(self, sources: Mapping[str, Source], rows_each: int, seed: int) -> None:
        super().__init__(sources, dict.fromkeys(sources, 1), seed, "sequence")
        self.rows_each, self.names = rows_each, list(self.sources)
        self.fingerprint = sha256(f"{rows_each} rows each of {self.fingerprint}".encode()).hexdigest()

    def num_rows(self, split: str) -> int:
        """Count the rows of one domain, or those of validation."""
        return self.rows_each if split == "train" else sum(self.validation.values())

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of an epoch: of training, of the domain whose turn it is."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        if split == "validation":
            return self.validation_row(index)
        turn, domain = divmod(epoch, len(self.names))
        return self.training_row(self.names[domain], turn * self.rows_each + index)


def _place(folder: str, source: DataConfig) -> DataConfig:
    """Return `source` with `folder` before what it reads, unless that is absolute."""
    if isinstance(source, TokensConfig):
        return replace(source, path=_below(folder, source.path or ""))
    if not isinstance(source, TextConfig):
        return source
    if isinstance(source.path, list):
        return replace(source, path=[_below(folder, path) for path in source.path])
    return replace(source, path=_below(folder, source.path or ""))


def _below(folder: str, path: str) -> str:
    return str(Path(folder).expanduser() / Path(path).expanduser())


def _cut(name: str, source: DataConfig, segments: int) -> dict[str, DataConfig]:
    """Cut a text file into parts of equal bytes, one after the other."""
    if not isinstance(source, TextConfig) or not isinstance(source.path, str):
        raise ConfigError(
            f"data.segments={segments}: data.sources.{name} must be one text file; use {{name: text, path: <a file>}}"
        )
    file = Path(source.path).expanduser()
    if not file.is_file():
        raise DataError(f"data.sources.{name}.path={source.path}: no such file; data.segments={segments} cuts one file")
    start, end = source.span or (0, file.stat().st_size)
    edges = [start + (end - start) * part // segments for part in range(segments + 1)]
    return {f"{name}_{part + 1}": replace(source, span=[edges[part], edges[part + 1]]) for part in range(segments)}
