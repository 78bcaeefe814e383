"""A byte-pair tokenizer trained on the run's own text: byte-level, so any text round-trips, and saved with the run."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.tokenizer import END_TEXT, FILE_NAME, Tokens, cut_parts, join_pieces, to_utf8
from nested_learning.errors import ConfigError, DataError

Merge = tuple[str, str]


class BpeTokenizer:
    """Byte-level byte-pair encoding (arXiv 1508.07909, on bytes as in GPT-2), run by the `tokenizers` library.

    `merges`: pairs of tokens in the order learned, each byte written as its letter of `byte_letters`; they are all
    there is to save. `end` is one id above theirs, unknown to the library: no text, not even <|end|>, encodes to it.
    """

    name = "bpe"

    def __init__(self, merges: Sequence[Merge]) -> None:
        """Raises ConfigError without the package `tokenizers`, DataError for a merge of tokens that are not there."""
        self.merges = list(merges)
        letters = byte_letters()
        vocab = {letter: i for i, letter in enumerate(letters)}
        for a, b in self.merges:
            if a not in vocab or b not in vocab:
                raise DataError(f"tokenizer: {a!r} and {b!r} are merged before they are made; save the tokenizer again")
            vocab.setdefault(a + b, len(vocab))
        self.end = len(vocab)
        self.vocab_size = self.end + 1
        self.fingerprint = sha256(json.dumps(["bpe", self.merges]).encode()).hexdigest()
        self._pieces = [bytes(letters[letter] for letter in token) for token in vocab] + [END_TEXT.encode()]
        self.token_bytes = np.array([len(piece) for piece in self._pieces], dtype=np.int64)
        self.token_bytes[self.end] = 0
        self._model = _make_model(vocab, self.merges)

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the tokens of `text` [t]. Raises DataError for a lone surrogate, which is no text."""
        to_utf8(text)
        parts = [self._model.encode(part, add_special_tokens=False).ids for part in cut_parts(text)]
        return np.concatenate([np.array(ids, dtype=np.int64) for ids in [[], *parts]])

    def decode(self, tokens: Tokens) -> str:
        """Return the text of `tokens`: `end` is shown as <|end|>, half a character as the replacement character."""
        return join_pieces(self._pieces, tokens)

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` into `directory`, which exists."""
        saved = json.dumps({"name": self.name, "merges": self.merges})
        (directory / FILE_NAME).write_text(saved + "\n", encoding="utf-8")


def train_bpe(texts: Sequence[str], vocab_size: int) -> BpeTokenizer:
    """Train a tokenizer of exactly `vocab_size` ids, 256 bytes and `end` among them. Equal texts give equal tokens.

    Raises ConfigError when `vocab_size` is below 257 or more than `texts` can fill, and without `tokenizers`.
    """
    if vocab_size < 257:
        raise ConfigError(
            f"data.vocab_size={vocab_size}: must be at least 257 (256 bytes, <|end|>); data.vocab_size=4096"
        )
    library = _library()
    letters = byte_letters()
    model = _make_model({letter: i for i, letter in enumerate(letters)}, [])
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=list(letters), show_progress=False
    )
    model.train_from_iterator((part for text in texts for part in cut_parts(text)), trainer)
    tokenizer = BpeTokenizer([(a, b) for a, b in json.loads(model.to_str())["model"]["merges"]])
    if tokenizer.vocab_size != vocab_size:
        raise ConfigError(
            f"data.vocab_size={vocab_size}: the training text fills only {tokenizer.vocab_size}; "
            f"use a longer text, or data.vocab_size={tokenizer.vocab_size}"
        )
    return tokenizer


def byte_letters() -> dict[str, int]:
    """Map letters to the 256 bytes they stand for in the library's byte level: printable latin-1 stands for itself."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _make_model(vocab: dict[str, int], merges: list[Merge]) -> Any:
    library = _library()
    model = library.Tokenizer(library.models.BPE(vocab=vocab, merges=merges))
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return model


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(
            "data.tokenizer=bpe: needs the package tokenizers; pip install tokenizers, or use data.tokenizer=byte"
        ) from error
    return tokenizers
