"""Rows of made-up documents that end with a question and its answer; they are functions of their place."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Generic, TypeVar

import numpy as np

from nested_learning.data.source import IGNORE, Row
from nested_learning.data.tasks.haystack import Tokens
from nested_learning.data.tasks.synthetic import EPOCH_ROWS
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import DataError
from nested_learning.seeds import derive_seed

What = TypeVar("What")


@dataclass(frozen=True)
class DocumentSpec(Generic[What]):
    """A document before its length is chosen: `what` it says, `shortest`, the tokens that takes at least, and
    `num_asked`, the last tokens of it whose next ones are the answer and the end.
    """

    what: What
    shortest: int
    num_asked: int


class QADocuments(ABC, Generic[What]):
    """A Source of documents, drawn afresh for each place; they fill every row, from an `end` token each.

    A document has `min_length` tokens to what is left of the row, short ones more often (log-uniform); what no document
    fits into is filled with `end` tokens that have no target. `train_on`: asked or all. `about`: all else that
    documents depend on, for the fingerprint.
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
    def spec(self, rng: np.random.Generator, split: str) -> DocumentSpec[What]:
        """Draw what a document of `split` says."""

    @abstractmethod
    def document(self, rng: np.random.Generator, spec: DocumentSpec[What], length: int) -> Tokens:
        """Return the document with exactly `length` tokens, at least `spec.shortest`, without the end before it."""

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        return {"train": EPOCH_ROWS, "validation": self._val_rows}[split]

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of an epoch: equal arguments give equal rows. Raises DataError for one too short."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        rng = np.random.default_rng(derive_seed(self._seed, "asked", split, epoch, index))
        documents, counts = zip(*self._documents(rng, split), strict=True)
        sizes = [len(document) for document in documents]
        tokens = np.concatenate(documents)
        targets = np.append(tokens[1:], self.end)
        is_asked = [np.arange(size) >= size - count for size, count in zip(sizes, counts, strict=True)]
        targets = np.where(np.concatenate(is_asked), targets, IGNORE)
        return Row(tokens, targets, np.repeat(np.arange(len(sizes)), sizes))

    def _documents(self, rng: np.random.Generator, split: str) -> Iterator[tuple[Tokens, int]]:
        """Draw the documents of a row, and how many last tokens of each have a target."""
        left = self.seq_len
        while left:
            spec = self.spec(rng, split)
            shortest = 1 + spec.shortest
            if shortest > left == self.seq_len:
                raise DataError(f"data.seq_len={left}: too short for a document; use at least data.seq_len={shortest}")
            if shortest > left:
                yield np.full(left, self.end), 0
                return
            shortest = max(shortest, min(self.min_length, left))
            length = round(shortest * (left / shortest) ** rng.random())
            length = left if left - length < self.min_length else length
            document = self.document(rng, spec, length - 1)
            yield np.append(self.end, document), spec.num_asked if self._train_on == "asked" else length
            left -= length
