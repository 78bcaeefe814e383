"""Documents packed into rows of one length: every transition of the text is a target exactly once an epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.documents import split_documents
from nested_learning.data.source import IGNORE, SPLITS, DataConfig, Row, require_at_least
from nested_learning.data.tokenizer import ByteTokenizer, Tokenizer, cut_parts
from nested_learning.errors import ConfigError, DataError

TOKENIZERS = ("byte", "bpe")


@dataclass(kw_only=True)
class PackedConfig(DataConfig):
    """What the sources of text share.

    `tokenizer`: byte or bpe; `vocab_size` belongs to bpe, which is trained on the training split.
    `val_fraction`: at most this share of the text is kept for validation.
    """

    batch_size: int = 16
    val_rows: int = 64
    seq_len: int = 256
    tokenizer: str = "byte"
    vocab_size: int | None = None
    val_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, seq_len=self.seq_len)
        if not 0 < self.val_fraction < 1:
            raise ConfigError(
                f"data.val_fraction={self.val_fraction}: must lie between 0 and 1, e.g. data.val_fraction=0.1"
            )
        self._check_tokenizer()

    def _check_tokenizer(self) -> None:
        if self.tokenizer not in TOKENIZERS:
            raise ConfigError(
                f"data.tokenizer={self.tokenizer}: must be one of {', '.join(TOKENIZERS)}; data.tokenizer=byte"
            )
        if self.tokenizer == "byte" and self.vocab_size is not None:
            raise ConfigError(
                f"data.vocab_size={self.vocab_size}: the byte tokenizer has a fixed vocabulary; "
                "leave data.vocab_size=null, or use data.tokenizer=bpe"
            )
        if self.tokenizer == "bpe" and self.vocab_size is None:
            raise ConfigError("data.tokenizer=bpe: needs a vocabulary size of at least 257, e.g. data.vocab_size=4096")
        if self.vocab_size is not None and self.vocab_size < ByteTokenizer.vocab_size:
            raise ConfigError(
                f"data.vocab_size={self.vocab_size}: must be at least 257 (256 bytes, <|end|>); data.vocab_size=4096"
            )

    def pack(self, documents: Sequence[str], where: str, tokenizer: Tokenizer | None) -> "PackedText":
        """Split `documents`, make the tokenizer unless one is given, and pack. `where` names the text in errors."""
        train, validation = split_documents(documents, self.val_fraction)
        if tokenizer is None:
            tokenizer = self._make_tokenizer(train)
        streams = {"train": to_stream(train, tokenizer), "validation": to_stream(validation, tokenizer)}
        # the shortest one, so that the length the error offers fits both
        split = min(streams, key=lambda split: len(streams[split]))
        _require_one_row(streams[split], self.seq_len, f"{where}, {split} split")
        return PackedText(streams, tokenizer, self.seq_len)

    def _make_tokenizer(self, texts: list[str]) -> Tokenizer:
        if self.vocab_size is None:
            return ByteTokenizer()
        from nested_learning.data.bpe import train_bpe

        return train_bpe(texts, self.vocab_size)


class PackedText:
    """A Source of text: row `i` is tokens [i * seq_len, (i + 1) * seq_len) of its split's stream, whatever the epoch.

    The last row is padded with `end` tokens that have no target; the padding counts as one more document.
    """

    def __init__(self, streams: dict[str, NDArray[np.unsignedinteger]], tokenizer: Tokenizer, seq_len: int) -> None:
        self.vocab_size = tokenizer.vocab_size
        self.seq_len = seq_len
        self.tokenizer: Tokenizer | None = tokenizer
        self._end = tokenizer.end
        self._streams = streams
        self.fingerprint = _fingerprint(streams, tokenizer)

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        # n tokens have n - 1 transitions
        return -(-(len(self._streams[split]) - 1) // self.seq_len)

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index`; `epoch` changes nothing, since only the order of rows differs between epochs."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        start = index * self.seq_len
        window = self._streams[split][start : start + self.seq_len + 1].astype(np.int64)
        tokens, targets = window[:-1], window[1:]
        begins = tokens == self._end
        # a row that opens inside a document and one that opens with its first token both start at document 0
        documents = np.cumsum(begins) - begins[0]
        missing = self.seq_len - len(tokens)
        return Row(
            np.pad(tokens, (0, missing), constant_values=self._end),
            np.pad(targets, (0, missing), constant_values=IGNORE),
            np.pad(documents, (0, missing), constant_values=documents[-1] + 1),
        )


def to_stream(documents: Sequence[str], tokenizer: Tokenizer) -> NDArray[np.unsignedinteger]:
    """Return the tokens `end d1 end d2 ... end` in the smallest unsigned type that holds the vocabulary."""
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    end = np.array([tokenizer.end], dtype=dtype)
    pieces = [end]
    for document in documents:
        pieces += [tokenizer.encode(part).astype(dtype) for part in cut_parts(document)]
        pieces.append(end)
    return np.concatenate(pieces)


def _require_one_row(stream: NDArray[np.unsignedinteger], seq_len: int, where: str) -> None:
    transitions = len(stream) - 1
    if transitions < seq_len:
        raise DataError(
            f"{where}: {transitions} tokens are less than one sequence of data.seq_len={seq_len}; "
            f"use a longer text, or at most data.seq_len={transitions}"
        )


def _fingerprint(streams: dict[str, NDArray[np.unsignedinteger]], tokenizer: Tokenizer) -> str:
    digest = sha256(tokenizer.fingerprint.encode())
    for split in SPLITS:
        digest.update(f"{split} {len(streams[split])}\n".encode())
        digest.update(streams[split].tobytes())
    return digest.hexdigest()
