"""Text to tokens and back. The byte tokenizer lives here, the trained one in `bpe.py`; both are saved as plain JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
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

Tokens = Iterable[int] | NDArray[np.integer]


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

    def decode(self, tokens: Tokens) -> str:
        """Return the text of `tokens`: `end` is shown as <|end|>, half a character as the replacement character."""
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
        return np.frombuffer(to_utf8(text), dtype=np.uint8).astype(np.int64)

    def decode(self, tokens: Tokens) -> str:
        """Return the text of `tokens`: `end` is shown as <|end|>, half a character as the replacement character."""
        return join_pieces(self._pieces, tokens)

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into `directory`, which exists."""
        (directory / FILE_NAME).write_text(json.dumps({"name": self.name}) + "\n", encoding="utf-8")


def open_tokenizer(directory: Path) -> Tokenizer:
    """Open the tokenizer that `save` wrote into `directory`. Raises DataError when it is missing or damaged."""
    path = directory / FILE_NAME
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a saved tokenizer ({error}); open a directory that holds {FILE_NAME}") from error
    match saved:
        case {"name": "byte"}:
            return ByteTokenizer()
        case {"name": "bpe", "merges": list(merges)} if all(_is_merge(merge) for merge in merges):
            from nested_learning.data.bpe import BpeTokenizer

            return BpeTokenizer([(a, b) for a, b in merges])
    raise DataError(f"{path}: not a saved tokenizer, it must be a `byte` or a `bpe`; save the tokenizer again")


def _is_merge(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(token, str) and token for token in value)


def to_utf8(text: str) -> bytes:
    """Return the utf-8 bytes of `text`. Raises DataError for a lone surrogate, which is no text."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"text at character {error.start}: not valid unicode; give it as utf-8") from error


def join_pieces(pieces: Sequence[bytes], tokens: Tokens) -> str:
    """Join the bytes each token stands for; bytes that form no character become the replacement character."""
    return b"".join(pieces[int(token)] for token in tokens).decode("utf-8", errors="replace")


def cut_parts(text: str) -> Iterator[str]:
    """Cut `text` after the first line end beyond each PART_LENGTH characters; a part cut again stays as it is."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + PART_LENGTH - 1) + 1 or len(text)
        yield text[start:end]
        start = end
