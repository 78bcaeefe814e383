"""Documents packed into rows of one length: every transition of the text is a target exactly once an epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import SPLITS, DataConfig, Row, require_at_least, require_one_of
from nested_learning.data.text.documents import split_documents
from nested_learning.data.text.packing import PACKINGS, Packing, Stream
from nested_learning.data.tokenizers.choose_tokenizer import check_choice, make_tokenizer
from nested_learning.data.tokenizers.tokenizer import Tokenizer, split_parts
from nested_learning.errors import ConfigError, DataError

BOUNDARIES = ("carry", "reset")


@dataclass(kw_only=True)
class PackingConfig(DataConfig):
    """What all sources of documents share, text or tokens.

    `packing`: concat cuts the text where a row is full; best_fit cuts no document that fits into a row.
    `boundary`: what the state of a model does where a document of a row begins: carry goes on, reset begins afresh.
    """

    batch_size: int = 16
    val_rows: int = 64
    seq_len: int = 256
    packing: str = "concat"
    boundary: str = "carry"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of(PACKINGS, packing=self.packing)
        require_one_of(BOUNDARIES, boundary=self.boundary)
        require_at_least(1, seq_len=self.seq_len)

    @property
    def resets(self) -> bool:
        """Say whether every document of a row is read from a fresh state."""
        return self.boundary == "reset"

    def pack_streams(
        self,
        streams: Mapping[str, Stream],
        tokenizer: Tokenizer,
        where: str,
        *,
        starts: Mapping[str, NDArray[np.int64]] | None = None,
        fingerprint: str | None = None,
    ) -> "PackedText":
        """Pack the documents of each split into rows. `where` names them in errors; the rest is `PackedText`'s."""
        # the shortest one, so that the length the error offers fits both
        split = min(streams, key=lambda split: len(streams[split]))
        _require_one_row(streams[split], self.seq_len, f"{where}, {split} split")
        return PackedText(
            streams, tokenizer, self.seq_len, packing=self.packing, starts=starts, fingerprint=fingerprint
        )


@dataclass(kw_only=True)
class DocumentsConfig(PackingConfig):
    """What the sources of text share.

    `tokenizer`: byte, or the path of one that exists; or, trained on the training split, bpe or words of `vocab_size`.
    `val_fraction`: at most this share of the text is kept for validation.
    """

    tokenizer: str = "byte"
    vocab_size: int | None = None
    val_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.val_fraction < 1:
            raise ConfigError(
                f"data.val_fraction={self.val_fraction}: must lie between 0 and 1, e.g. data.val_fraction=0.1"
            )
        check_choice(self.tokenizer, self.vocab_size)

    def pack(self, documents: Sequence[str], where: str, tokenizer: Tokenizer | None) -> "PackedText":
        """Split `documents`, make the tokenizer unless one is given, and pack. `where` names the text in errors."""
        train, validation = split_documents(documents, self.val_fraction)
        if tokenizer is None:
            tokenizer = make_tokenizer(self.tokenizer, self.vocab_size, train)
        streams = {"train": to_stream(train, tokenizer), "validation": to_stream(validation, tokenizer)}
        return self.pack_streams(streams, tokenizer, where)


class PackedText:
    """A Source of text: the documents of each split's stream, packed into rows that are the same in every epoch.

    A stream is the tokens `end d1 end d2 ... end` of its documents, an array or anything that is cut and counted like
    one. What a row lacks is filled with `end` tokens that have no target and count as one more document.
    `starts`: where the documents of each split begin; None: at every `end` but the last. `fingerprint`: that of the
    streams and the tokenizer, None to make it.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        tokenizer: Tokenizer,
        seq_len: int,
        *,
        packing: str = "concat",
        starts: Mapping[str, NDArray[np.int64]] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self.vocab_size = tokenizer.vocab_size
        self.seq_len = seq_len
        self.tokenizer: Tokenizer | None = tokenizer
        self.fingerprint = _fingerprint(streams, tokenizer) if fingerprint is None else fingerprint
        if packing != "concat":
            # other rows of the same text
            self.fingerprint = sha256(f"{packing} {self.fingerprint}".encode()).hexdigest()
        self.packings: dict[str, Packing] = {
            split: PACKINGS[packing](stream, None if starts is None else starts[split], tokenizer.end, seq_len)
            for split, stream in streams.items()
        }

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        return self.packings[split].num_rows

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index`; `epoch` changes nothing, since only the order of rows differs between epochs."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        return self.packings[split].row(index)


def to_stream(documents: Sequence[str], tokenizer: Tokenizer) -> NDArray[np.unsignedinteger]:
    """Return the tokens `end d1 end d2 ... end` in the smallest unsigned type that holds the vocabulary."""
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    end = np.array([tokenizer.end], dtype=dtype)
    pieces = [end]
    for document in documents:
        pieces += [tokenizer.encode(part).astype(dtype) for part in split_parts(document)]
        pieces.append(end)
    return np.concatenate(pieces)


def _require_one_row(stream: Stream, seq_len: int, where: str) -> None:
    transitions = len(stream) - 1
    if transitions < seq_len:
        raise DataError(
            f"{where}: {transitions} tokens are less than one sequence of data.seq_len={seq_len}; "
            f"use a longer text, or at most data.seq_len={transitions}"
        )


def _fingerprint(streams: Mapping[str, Stream], tokenizer: Tokenizer) -> str:
    digest = sha256(tokenizer.fingerprint.encode())
    for split in SPLITS:
        digest.update(f"{split} {len(streams[split])}\n".encode())
        digest.update(streams[split][:].tobytes())
    return digest.hexdigest()
