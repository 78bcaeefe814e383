"""`data=rows`: rows of any task from a file, as tokens and targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, DataConfig, Row, require_at_least
from nested_learning.data.text.json_lines import Item, read_json_lines
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.typed import PathText

ALLOWED = 'JSON lines such as {"tokens": [1, 24, 0, 1, 0], "targets": [null, null, null, 24, null]}'
# fills rows that are shorter than the longest
BLANK = 0


@dataclass(kw_only=True)
class RowsConfig(DataConfig):
    """Rows from JSON lines with `tokens` and a target for each, whole numbers below `vocab_size`.

    A target of null, or -100, is none. Shorter rows end in blanks (token 0, no target) up to the length of the longest.
    `validation_path`: other rows; null keeps the last fraction `val_fraction`. So rows of recall, MAD or formal
    languages from elsewhere are trained on, or evaluated with `evals=validation` by a model that was trained on these.
    """

    name: str = "rows"
    batch_size: int = 32
    val_rows: int = 256
    path: PathText | None = None
    validation_path: PathText | None = None
    val_fraction: float = 0.1
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError(f"data=rows: data.path is missing; use data.path=<{ALLOWED}>")
        if self.vocab_size is None:
            raise ConfigError(
                "data=rows: data.vocab_size is missing; use data.vocab_size=<more than the largest token and target>, "
                "for a trained model its own"
            )
        require_at_least(2, vocab_size=self.vocab_size)
        if not 0 < self.val_fraction < 1:
            raise ConfigError(
                f"data.val_fraction={self.val_fraction}: must lie between 0 and 1, e.g. data.val_fraction=0.1"
            )

    def unread(self) -> dict[str, str]:
        """Return the keys that these settings do not read, each with the reason."""
        return {} if self.validation_path is None else {"val_fraction": "data.validation_path brings the rows"}

    def require_files(self, key: str = "data") -> None:
        """Raise DataError for a file that is missing."""
        for option, path in (("path", self.path), ("validation_path", self.validation_path)):
            if path is not None and not Path(path).expanduser().is_file():
                raise DataError(f"{key}.{option}={path}: no such file; it must have {ALLOWED}")

    def num_tokens(self, seed: int) -> int:
        """Return `vocab_size`, so that a model opens where the file is gone."""
        assert self.vocab_size is not None
        return self.vocab_size

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "RowsSource":
        """Read the files. Raises DataError for other contents, ConfigError for a model that reads text."""
        if tokenizer is not None:
            raise ConfigError(f"data=rows: its tokens are not text, and the model reads text ({tokenizer.name})")
        self.require_files()
        rows = read_rows(str(self.path), "data.path", self.num_tokens(seed))
        if self.validation_path is not None:
            validation = read_rows(self.validation_path, "data.validation_path", self.num_tokens(seed))
            return RowsSource(self.num_tokens(seed), rows, validation)
        cut = len(rows) - max(1, round(self.val_fraction * len(rows)))
        if not cut:
            raise DataError(f"data.path={self.path}: has one row; give more, or data.validation_path=<others>")
        return RowsSource(self.num_tokens(seed), rows[:cut], rows[cut:])


class RowsSource:
    """A Source of given rows, the same in every epoch. A row is one document."""

    def __init__(self, vocab_size: int, train: Sequence[Row], validation: Sequence[Row]) -> None:
        self.vocab_size = vocab_size
        self.tokenizer: Tokenizer | None = None
        self.seq_len = max(len(row.tokens) for row in (*train, *validation))
        self._rows = {"train": train, "validation": validation}
        digest = sha256(str(vocab_size).encode())
        for split, rows in self._rows.items():
            digest.update(f"{split} {len(rows)}\n".encode())
            for row in rows:
                digest.update(row.tokens.tobytes() + row.targets.tobytes())
        self.fingerprint = digest.hexdigest()

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        return len(self._rows[split])

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index`, the same in every epoch: only the order of rows differs between epochs."""
        row = self._rows[split][index]
        missing = (0, self.seq_len - len(row.tokens))
        return Row(
            np.pad(row.tokens, missing, constant_values=BLANK),
            np.pad(row.targets, missing, constant_values=IGNORE),
            np.zeros(self.seq_len, dtype=np.int64),
        )


def read_rows(path: str, key: str, vocab_size: int) -> list[Row]:
    """Return the rows in the file `path`, the value of the option `key`; raise DataError for one that is no row."""
    where = f"{key}={path}"
    items = read_json_lines(Path(path).expanduser(), {"tokens": object, "targets": object}, where)
    return [_row(item, f"{where}, row {number}", vocab_size) for number, item in enumerate(items, 1)]


def _row(item: Item, place: str, vocab_size: int) -> Row:
    tokens = _numbers(item["tokens"], f"{place}: its tokens", vocab_size)
    listed = item["targets"] if isinstance(item["targets"], list) else [item["targets"]]
    is_none = [each is None or each == IGNORE for each in listed]
    given = [0 if none else each for each, none in zip(listed, is_none, strict=True)]
    targets = _numbers(given, f"{place}: its targets", vocab_size)
    if len(tokens) != len(targets) or all(is_none):
        raise DataError(f"{place}: needs as many targets as tokens, and at least one that is no null; {ALLOWED}")
    return Row(tokens, np.where(is_none, IGNORE, targets), np.zeros(len(tokens), dtype=np.int64))


def _numbers(values: Any, what: str, vocab_size: int) -> NDArray[np.int64]:
    if not isinstance(values, list) or not all(type(each) is int and 0 <= each < vocab_size for each in values):
        raise DataError(
            f"{what} must be a list of whole numbers from 0 to {vocab_size - 1} (data.vocab_size); {ALLOWED}"
        )
    return np.array(values, dtype=np.int64)
