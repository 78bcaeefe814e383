"""A tokenizer of whole words: one token each, for small worlds in which everything is said with few of them."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.tokenizers.tokenizer import END_TEXT, FILE_NAME, ByteTokenizer, TokenIds, to_utf8
from nested_learning.errors import ConfigError, DataError

# letters, with the space before them; what lies between is read byte by byte, and so is every digit
WORD = re.compile(r" ?[^\W\d_]+")
FIRST_WORD = ByteTokenizer.vocab_size


class WordTokenizer:
    """One token for each of `words`, one for every byte of all else, and one for the end of a document.

    A word is letters, with or without a space before them. Source: ours. Raises DataError for what is no word, or is
    there twice.
    """

    name = "words"
    end = ByteTokenizer.end

    def __init__(self, words: Sequence[str]) -> None:
        wrong = [word for word in words if WORD.fullmatch(word) is None]
        if wrong or len(set(words)) < len(words):
            raise DataError(f"tokenizer: its words must be letters, each once: {wrong[:3]}; save the tokenizer again")
        self.words = list(words)
        self.vocab_size = FIRST_WORD + len(self.words)
        self._ids = {word: number for number, word in enumerate(self.words, start=FIRST_WORD)}
        self._pieces = [bytes([byte]) for byte in range(256)] + [END_TEXT.encode()]
        self._pieces += [word.encode() for word in self.words]
        self.token_bytes = np.array([len(piece) for piece in self._pieces])
        self.token_bytes[self.end] = 0
        self.fingerprint = sha256(json.dumps(["words", self.words]).encode()).hexdigest()

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the tokens of `text` [t]. Raises DataError for a lone surrogate, which is no text."""
        to_utf8(text)
        return self._encode(text)

    def encode_bytes(self, data: bytes) -> NDArray[np.int64]:
        """Return the tokens of `data` [t], which need not be utf-8."""
        return self._encode(data.decode("utf-8", "surrogateescape"))

    def decode(self, tokens: TokenIds) -> str:
        """Return the text of `tokens`: `end` is shown as <|end|>, half a character as the replacement character."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, tokens: TokenIds) -> bytes:
        """Return the bytes that `tokens` stand for."""
        return b"".join([self._pieces[int(token)] for token in tokens])

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into `directory`, which exists."""
        saved = {"name": self.name, "words": self.words}
        (directory / FILE_NAME).write_text(json.dumps(saved) + "\n", encoding="utf-8")

    def _encode(self, text: str) -> NDArray[np.int64]:
        tokens: list[int] = []
        done = 0
        for found in WORD.finditer(text):
            token = self._ids.get(found[0])
            if token is not None:
                tokens += _bytes(text[done : found.start()])
                tokens.append(token)
                done = found.end()
        return np.array([*tokens, *_bytes(text[done:])], dtype=np.int64)


def train_words(texts: Iterable[str], vocab_size: int, option: str = "data.vocab_size") -> WordTokenizer:
    """Make a tokenizer of exactly `vocab_size` tokens: of the words that are most frequent in `texts`.

    Of equally frequent words the first in the alphabet counts. `option` is how errors name `vocab_size`. Raises
    ConfigError where `texts` have fewer words.
    """
    counts = Counter(word for text in texts for word in WORD.findall(text))
    if FIRST_WORD + len(counts) < vocab_size:
        raise ConfigError(
            f"{option}={vocab_size}: the training text has only {len(counts)} different words; "
            f"use a longer text, or {option}={FIRST_WORD + len(counts)}"
        )
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    return WordTokenizer(frequent[: vocab_size - FIRST_WORD])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
