"""What every source of data gives: rows that are pure functions of their place, so nothing about them is saved."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError

# targets with this number are no targets: the loss leaves them out
IGNORE = -100

SPLITS = ("train", "validation")


class Row(NamedTuple):
    """One sequence: `tokens`, `targets` (already shifted, IGNORE = no target) and `documents`, each int64 [t]."""

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int64]


@runtime_checkable
class Source(Protocol):
    """Rows of `seq_len` tokens below `vocab_size`. `fingerprint` is the sha256 of all that is read.

    `tokenizer` turns tokens into text and is None where tokens are no text.
    """

    vocab_size: int
    seq_len: int
    tokenizer: Tokenizer | None
    fingerprint: str

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        ...

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index`, 0 <= index < num_rows(split), of an epoch: equal arguments give equal rows."""
        ...


@dataclass(kw_only=True)
class DataConfig(ABC):
    """What all options of `data=` share. The rows' length is `Source.seq_len`.

    `batch_size`: rows of one optimizer step, all ranks and micro-batches together.
    `val_rows`: rows of one validation, evenly spaced in the validation split; all of it where it has fewer.
    """

    name: str
    batch_size: int
    val_rows: int

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size, val_rows=self.val_rows)

    @property
    def resets(self) -> bool:
        """Say whether every document of a row is read from a fresh state: a row that is a document always is."""
        return False

    @abstractmethod
    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> Source:
        """Read or prepare the data. `tokenizer`: that of a trained model, None to make the one the options describe.

        Raises DataError for data that cannot be used, ConfigError for options that contradict each other.
        """


def require_one_of(allowed: Collection[str], **values: str) -> None:
    """Raise ConfigError for the first of `values`, named as in `data.<name>`, that is not `allowed`."""
    for name, value in values.items():
        if value not in allowed:
            raise ConfigError(
                f"data.{name}={value}: must be one of {', '.join(allowed)}; data.{name}={next(iter(allowed))}"
            )


def require_at_least(least: int, **values: int) -> None:
    """Raise ConfigError for the first of `values`, named as in `data.<name>`, that is below `least`."""
    for name, value in values.items():
        if value < least:
            raise ConfigError(f"data.{name}={value}: must be at least {least}, e.g. data.{name}={least}")
