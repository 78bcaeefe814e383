"""Rows filled with synthetic documents that end with a question and its answer. A pure function of the row's index."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Generic, TypeVar

import numpy as np

from nested_learning.data.source import IGNORE, DataConfig, Row, require_one_of
from nested_learning.data.tasks.haystack import Tokens
from nested_learning.data.tasks.synthetic import EPOCH_ROWS
from nested_learning.data.tokenizers.choose_tokenizer import check_choice
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.seeds import derive_seed
from nested_learning.typed import PathText

Content = TypeVar("Content")


@dataclass(kw_only=True)
class QAConfig(DataConfig):
    """Rows of `seq_len` tokens, filled with documents of at least `min_length` that end with a question and its answer.

    Lengths are log-uniform, so short documents are more frequent; the model's state continues across them.
    `train_on`: asked, targets are the answer and the end after it; or all, every next token. `tokenizer`: words, one
    token for each word of the task and bytes for everything else; byte; or the path of a tokenizer.
    """

    batch_size: int = 16
    val_rows: int = 64
    seq_len: int = 512
    min_length: int = 128
    train_on: str = "asked"
    tokenizer: PathText = "words"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer != "words":
            check_choice(self.tokenizer, None)
        require_one_of(("asked", "all"), train_on=self.train_on)
        if not 1 <= self.min_length <= self.seq_len:
            raise ConfigError(
                f"data.min_length={self.min_length}: must be 1 to data.seq_len={self.seq_len}; use data.min_length=128"
            )


@dataclass(frozen=True)
class DocumentSpec(Generic[Content]):
    """A document before its length is chosen.

    `content`: what it contains. `min_length`: the least number of tokens that takes. `num_scored`: the number of last
    tokens whose targets are the answer and the end.
    """

    content: Content
    min_length: int
    num_scored: int


class QADocuments(ABC, Generic[Content]):
    """A Source of documents drawn from a generator keyed by the row. They fill every row, each after an `end` token.

    The length of a document is log-uniform between `min_length` and the free space of the row. Space that is too small
    for a document is filled with `end` tokens without targets. `lengths`: (min_length, seq_len). `train_on`: asked or
    all, see `QAConfig`. `about`: everything else that determines the documents, for the fingerprint.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        seed: int,
        lengths: tuple[int, int],
        val_rows: int,
        train_on: str,
        about: Iterable[str],
    ) -> None:
        self.tokenizer: Tokenizer | None = tokenizer
        self.vocab_size, self.end = tokenizer.vocab_size, tokenizer.end
        self.min_length, self.seq_len = lengths
        self._seed, self._val_rows, self._train_on = seed, val_rows, train_on
        digest = sha256(repr((tokenizer.fingerprint, seed, lengths, train_on)).encode())
        for text in about:
            digest.update(sha256(text.encode()).digest())
        self.fingerprint = digest.hexdigest()

    @abstractmethod
    def spec(self, rng: np.random.Generator, split: str) -> DocumentSpec[Content]:
        """Draw the content of a document of `split`."""

    @abstractmethod
    def document(self, rng: np.random.Generator, spec: DocumentSpec[Content], length: int) -> Tokens:
        """Return the document with exactly `length` tokens, at least `spec.min_length`, without its `end` token."""

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        return {"train": EPOCH_ROWS, "validation": self._val_rows}[split]

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of `epoch`. Equal arguments return equal rows. Raises DataError where no document fits."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        rng = np.random.default_rng(derive_seed(self._seed, "asked", split, epoch, index))
        documents, counts = zip(*self._documents(rng, split), strict=True)
        sizes = [len(document) for document in documents]
        tokens = np.concatenate(documents)
        # the last token predicts the `end` of the next row's first document
        targets = np.append(tokens[1:], self.end)
        is_scored = [np.arange(size) >= size - count for size, count in zip(sizes, counts, strict=True)]
        targets = np.where(np.concatenate(is_scored), targets, IGNORE)
        return Row(tokens, targets, np.repeat(np.arange(len(sizes)), sizes))

    def _documents(self, rng: np.random.Generator, split: str) -> Iterator[tuple[Tokens, int]]:
        """Draw the documents of a row, and the number of last tokens of each that have a target."""
        space = self.seq_len
        while space:
            spec = self.spec(rng, split)
            shortest = 1 + spec.min_length
            if shortest > space == self.seq_len:
                raise DataError(f"data.seq_len={space}: too short for a document; use at least data.seq_len={shortest}")
            if shortest > space:
                yield np.full(space, self.end), 0
                return
            shortest = max(shortest, min(self.min_length, space))
            # log-uniform between shortest and space
            length = round(shortest * (space / shortest) ** rng.random())
            # extend the last document over space that is too small for another one
            length = space if space - length < self.min_length else length
            document = self.document(rng, spec, length - 1)
            yield np.append(self.end, document), spec.num_scored if self._train_on == "asked" else length
            space -= length
