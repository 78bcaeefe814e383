"""A tokenizer of whole words, for synthetic texts with a small vocabulary."""

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

# letters with an optional space before them; everything else, digits included, is encoded byte by byte
WORD = re.compile(r" ?[^\W\d_]+")
FIRST_WORD = ByteTokenizer.vocab_size


class WordTokenizer:
    """One token for each of `words`, one for every byte outside of them, and the `end` token.

    A word is letters, with or without one space before them. Raises DataError for a string that is not a word, and for
    duplicates.
    """

    name = "words"
    end = ByteTokenizer.end

    def __init__(self, words: Sequence[str]) -> None:
        wrong = [word for word in words if WORD.fullmatch(word) is None]
        if wrong or len(set(words)) < len(words):
            raise DataError(
                f"tokenizer: words must be letters and occur once, unlike {wrong[:3] or 'these'}; save it again"
            )
        self.words = list(words)
        self.vocab_size = FIRST_WORD + len(self.words)
        self._ids = {word: number for number, word in enumerate(self.words, start=FIRST_WORD)}
        self._bytes_of = [bytes([byte]) for byte in range(256)] + [END_TEXT.encode()]
        self._bytes_of += [word.encode() for word in self.words]
        self.token_bytes = np.array([len(token) for token in self._bytes_of])
        self.token_bytes[self.end] = 0
        self.fingerprint = sha256(json.dumps(["words", self.words]).encode()).hexdigest()

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the tokens of `text` [t]. Raises DataError for a lone surrogate, which is not valid text."""
        to_utf8(text)
        return self._encode(text)

    def encode_bytes(self, data: bytes) -> NDArray[np.int64]:
        """Return the tokens of `data` [t], which need not be utf-8."""
        return self._encode(data.decode("utf-8", "surrogateescape"))

    def decode(self, tokens: TokenIds) -> str:
        """Return the text of `tokens`, with `end` as <|end|> and incomplete characters as U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, tokens: TokenIds) -> bytes:
        """Return the bytes that `tokens` stand for."""
        return b"".join([self._bytes_of[int(token)] for token in tokens])

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into the existing `directory`."""
        saved = {"name": self.name, "words": self.words}
        (directory / FILE_NAME).write_text(json.dumps(saved) + "\n", encoding="utf-8")

    def _encode(self, text: str) -> NDArray[np.int64]:
        tokens: list[int] = []
        done = 0
        for match in WORD.finditer(text):
            token = self._ids.get(match[0])
            if token is not None:
                tokens += _bytes(text[done : match.start()])
                tokens.append(token)
                done = match.end()
        return np.array([*tokens, *_bytes(text[done:])], dtype=np.int64)


def train_words(texts: Iterable[str], vocab_size: int, option: str = "data.vocab_size") -> WordTokenizer:
    """Make a tokenizer of exactly `vocab_size` tokens from the most frequent words in `texts`.

    Ties are broken in alphabetical order. `option`: the name of `vocab_size` in errors. Raises ConfigError where
    `texts` have too few different words.
    """
    counts = Counter(word for text in texts for word in WORD.findall(text))
    if FIRST_WORD + len(counts) < vocab_size:
        raise ConfigError(
            f"{option}={vocab_size}: the training text has only {len(counts)} different words; "
            f"use a longer text, or {option}={FIRST_WORD + len(counts)}"
        )
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    return WordTokenizer(frequent[: vocab_size - FIRST_WORD])


def word_tokenizer(texts: Iterable[str]) -> WordTokenizer:
    """Return the tokenizer of all words in `texts`."""
    return WordTokenizer(sorted({word for text in texts for word in WORD.findall(text)}))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
