"""The protocol of data sources. A row is a pure function of (split, epoch, index), so a source has no state to save."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.tokenizers.choose_tokenizer import require_tokenizer
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError

# the target of positions that have none; the loss skips them (PyTorch's own value in cross_entropy)
IGNORE = -100

SPLITS = ("train", "validation")


class Row(NamedTuple):
    """One row of a batch: `tokens`, `targets` and `documents`, each int64 [t].

    `targets` are shifted by one already; IGNORE marks positions without one. `documents` numbers the documents of the
    row from 0.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int64]


@runtime_checkable
class Source(Protocol):
    """Rows of `seq_len` tokens, each below `vocab_size`.

    `tokenizer` turns tokens into text; None for tasks, whose tokens are not text. `fingerprint`: sha256 of everything
    that determines the rows.
    """

    vocab_size: int
    seq_len: int
    tokenizer: Tokenizer | None
    fingerprint: str

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        ...

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of `epoch`, 0 <= index < num_rows(split). Equal arguments return equal rows."""
        ...


@dataclass(kw_only=True)
class DataConfig(ABC):
    """The keys that all options of `data=` share. The length of a row is `Source.seq_len`.

    `batch_size`: rows per optimizer step, summed over ranks and micro-batches.
    `val_rows`: rows per validation, evenly spaced over the validation split; the whole split where it has fewer.
    """

    name: str
    batch_size: int
    val_rows: int

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size, val_rows=self.val_rows)

    @property
    def resets(self) -> bool:
        """Whether the state of the model is reset where a document begins inside a row."""
        return False

    def require_files(self, key: str = "data") -> None:  # noqa: B027 (most tasks have no files)
        """Raise DataError or ConfigError where a file that the options name is missing or in a format not read.

        No text is read, so that a mistake is found at once. `key` is the full name of these options.
        """

    @property
    def evaluation(self) -> list[str]:
        """Return the overrides of `phase=eval` that test what this data teaches; []: there is no such evaluation."""
        return []

    def require_tokenizer(self, key: str = "data") -> None:
        """Raise ConfigError or DataError where the options name a tokenizer that cannot be opened.

        The data of a trained model is read with its own tokenizer, and needs no other.
        """
        if "tokenizer" in vars(self):
            require_tokenizer(vars(self)["tokenizer"], f"{key}.tokenizer")

    def num_tokens(self, seed: int) -> int:
        """Return the size of the vocabulary of a task, whose tokens are not text."""
        return self.build(seed).vocab_size

    @abstractmethod
    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> Source:
        """Open the data. `tokenizer`: that of a trained model, or None to make the one that the options describe.

        `seed` determines what is drawn at random. Raises DataError for unusable data, ConfigError for options that
        contradict each other.
        """


def require_one_of(allowed: Collection[str], **values: str) -> None:
    """Raise ConfigError for the first of `values`, given as `data.<name>`, that is not in `allowed`."""
    for name, value in values.items():
        if value not in allowed:
            raise ConfigError(
                f"data.{name}={value}: must be one of {', '.join(allowed)}; data.{name}={next(iter(allowed))}"
            )


def require_at_least(least: int, **values: int) -> None:
    """Raise ConfigError for the first of `values`, given as `data.<name>`, that is below `least`."""
    for name, value in values.items():
        if value < least:
            raise ConfigError(f"data.{name}={value}: must be at least {least}, e.g. data.{name}={least}")
