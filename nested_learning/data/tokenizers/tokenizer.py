"""Text to tokens and back: what every tokenizer does, and the one of bytes. Others are in `bpe.py`; files are read in
`tokenizer_files.py`.
"""

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

# how the token that opens every document and closes the last is shown; the same letters in a text are ordinary text
END_TEXT = "<|end|>"

# encoding takes many bytes per token for a moment, so a long text is encoded in parts of about so many characters
PART_LENGTH = 1 << 18
# between words, where no tokenizer notices: after a line end, or before a space, that has no other space beside it
CUTS = re.compile(r"(?<=\S)\n(?=\S)|(?<=[a-z])(?= [a-z])")

TokenIds = Iterable[int] | NDArray[np.integer]


@runtime_checkable
class Tokenizer(Protocol):
    """Turns any text into tokens and back without loss.

    `end` is the id of the token that opens every document and closes the last; `encode` never makes it.
    `token_bytes` [vocab] counts the utf-8 bytes each token stands for, 0 for `end`: it turns loss into bits per byte.
    """

    name: str
    vocab_size: int
    end: int
    token_bytes: NDArray[np.int64]
    fingerprint: str

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the tokens of `text` [t]. Raises DataError for a lone surrogate, which is no text."""
        ...

    def encode_bytes(self, data: bytes) -> NDArray[np.int64]:
        """Return the tokens of `data` [t], which need not be utf-8."""
        ...

    def decode(self, tokens: TokenIds) -> str:
        """Return the text of `tokens`: `end` is shown by its name, half a character as the replacement character."""
        ...

    def decode_bytes(self, tokens: TokenIds) -> bytes:
        """Return the bytes that `tokens` stand for."""
        ...

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into `directory`, which exists."""
        ...


class ByteTokenizer:
    """One token per utf-8 byte, and one for the end of a document: nothing to train, nothing to get wrong."""

    name = "byte"
    vocab_size = 257
    end = 256

    def __init__(self) -> None:
        self.token_bytes = np.ones(self.vocab_size, dtype=np.int64)
        self.token_bytes[self.end] = 0
        self.fingerprint = sha256(b"byte").hexdigest()
        self._pieces = [bytes([byte]) for byte in range(256)] + [END_TEXT.encode()]

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the utf-8 bytes of `text` [t]. Raises DataError for a lone surrogate, which is no text."""
        return self.encode_bytes(to_utf8(text))

    def encode_bytes(self, data: bytes) -> NDArray[np.int64]:
        """Return `data` as numbers [t]."""
        return np.frombuffer(data, dtype=np.uint8).astype(np.int64)

    def decode(self, tokens: TokenIds) -> str:
        """Return the text of `tokens`: `end` is shown as <|end|>, half a character as the replacement character."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, tokens: TokenIds) -> bytes:
        """Return the bytes that `tokens` stand for."""
        return b"".join([self._pieces[int(token)] for token in tokens])

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into `directory`, which exists."""
        (directory / FILE_NAME).write_text(json.dumps({"name": self.name}) + "\n", encoding="utf-8")


def to_utf8(text: str) -> bytes:
    """Return the utf-8 bytes of `text`. Raises DataError for a lone surrogate, which is no text."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"text at character {error.start}: not valid unicode; give it as utf-8") from error


def split_parts(text: str) -> Iterator[str]:
    """Cut `text` at the first of CUTS beyond each PART_LENGTH characters; a part cut again stays as it is."""
    start = 0
    while start < len(text):
        cut = CUTS.search(text, start + PART_LENGTH - 1)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end
