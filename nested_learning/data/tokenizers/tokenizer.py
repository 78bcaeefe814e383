"""The tokenizer protocol, and the byte tokenizer. `bpe.py` and `words.py` hold the others."""

import json
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nested_learning.errors import DataError

FILE_NAME = "tokenizer.json"

# the name of the token that opens every document and closes the last; the same characters in a text are ordinary text
END_TEXT = "<|end|>"

# encoding needs many bytes of memory per token, so long texts are encoded in parts of about this many characters
PART_LENGTH = 1 << 18
# where a cut changes no tokens, because every tokenizer splits words there: at a single line end or before a single
# space. Next to more white space the words would differ.
CUTS = re.compile(r"(?<=\S)\n(?=\S)|(?<=[a-z])(?= [a-z])")

TokenIds = Iterable[int] | NDArray[np.integer]


@runtime_checkable
class Tokenizer(Protocol):
    """Turns any text into tokens and back without loss.

    `end`: the id of the token that opens every document and closes the last; `encode` never returns it.
    `token_bytes` [vocab]: the number of utf-8 bytes of each token, 0 for `end`; it converts a loss to bits per byte.
    """

    name: str
    vocab_size: int
    end: int
    token_bytes: NDArray[np.int64]
    fingerprint: str

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the tokens of `text` [t]. Raises DataError for a lone surrogate, which is not valid text."""
        ...

    def encode_bytes(self, data: bytes) -> NDArray[np.int64]:
        """Return the tokens of `data` [t], which need not be utf-8."""
        ...

    def decode(self, tokens: TokenIds) -> str:
        """Return the text of `tokens`, with `end` as its name and incomplete characters as U+FFFD."""
        ...

    def decode_bytes(self, tokens: TokenIds) -> bytes:
        """Return the bytes that `tokens` stand for."""
        ...

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into the existing `directory`."""
        ...


class ByteTokenizer:
    """One token per utf-8 byte, and the `end` token."""

    name = "byte"
    vocab_size = 257
    end = 256

    def __init__(self) -> None:
        self.token_bytes = np.ones(self.vocab_size, dtype=np.int64)
        self.token_bytes[self.end] = 0
        self.fingerprint = sha256(b"byte").hexdigest()
        self._bytes_of = [bytes([byte]) for byte in range(256)] + [END_TEXT.encode()]

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the utf-8 bytes of `text` [t]. Raises DataError for a lone surrogate, which is not valid text."""
        return self.encode_bytes(to_utf8(text))

    def encode_bytes(self, data: bytes) -> NDArray[np.int64]:
        """Return the bytes of `data` as token ids [t]."""
        return np.frombuffer(data, dtype=np.uint8).astype(np.int64)

    def decode(self, tokens: TokenIds) -> str:
        """Return the text of `tokens`, with `end` as <|end|> and incomplete characters as U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, tokens: TokenIds) -> bytes:
        """Return the bytes that `tokens` stand for."""
        return b"".join([self._bytes_of[int(token)] for token in tokens])

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into the existing `directory`."""
        (directory / FILE_NAME).write_text(json.dumps({"name": self.name}) + "\n", encoding="utf-8")


def to_utf8(text: str) -> bytes:
    """Return the utf-8 bytes of `text`. Raises DataError for a lone surrogate, which is not valid text."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"text at character {error.start}: is not valid unicode; use utf-8 text") from error


def split_parts(text: str) -> Iterator[str]:
    """Split `text` at the first of CUTS after every PART_LENGTH characters. Splitting a part again changes nothing."""
    start = 0
    while start < len(text):
        cut = CUTS.search(text, start + PART_LENGTH - 1)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end
