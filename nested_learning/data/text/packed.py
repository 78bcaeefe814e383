"""Documents packed into rows of equal length: every token of the stream is a target exactly once per epoch."""

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
from nested_learning.typed import PathText

BOUNDARIES = ("carry", "reset")


@dataclass(kw_only=True)
class PackingConfig(DataConfig):
    """The keys of all sources whose rows are packed documents, from text or from token shards.

    `packing`: concat fills rows with the stream and cuts documents where a row ends; best_fit cuts no document that
    fits into a row. `boundary`: the state of the model where a document begins inside a row: carry continues it, reset
    starts from a fresh state.
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
        """Whether every document of a row is read from a fresh state."""
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
        """Pack the documents of each split into rows; see `PackedText`. `where` names the data in errors."""
        # check the shorter split, so that the seq_len that the error suggests suits both
        split = min(streams, key=lambda split: len(streams[split]))
        _require_one_row(streams[split], self.seq_len, f"{where}, {split} split")
        return PackedText(
            streams, tokenizer, self.seq_len, packing=self.packing, starts=starts, fingerprint=fingerprint
        )


@dataclass(kw_only=True)
class DocumentsConfig(PackingConfig):
    """The keys of all sources that read text and encode it when they are opened.

    `tokenizer`: byte; bpe or words, trained on the training split with `vocab_size` tokens; or the path of a tokenizer.
    `val_fraction`: at most this fraction of the text is kept for validation.
    """

    tokenizer: PathText = "byte"
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
        """Split `documents`, make the tokenizer unless one is given, encode and pack. `where` names them in errors."""
        train, validation = split_documents(documents, self.val_fraction)
        if tokenizer is None:
            tokenizer = make_tokenizer(self.tokenizer, self.vocab_size, train)
        streams = {"train": to_stream(train, tokenizer), "validation": to_stream(validation, tokenizer)}
        return self.pack_streams(streams, tokenizer, where)


class PackedText:
    """A Source of text: the token stream of each split, packed into rows that are the same in every epoch.

    A stream holds the documents as `end d1 end d2 ... end`, in an array or anything with its length and slicing.
    Padding is `end` tokens without a target, which count as one more document.
    `starts`: the positions where documents begin, per split; None: at every `end` but the last. `fingerprint`: the
    hash of streams and tokenizer where it is known; None computes it.
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
            # concat keeps the plain hash; every other packing makes different rows of the same text
            self.fingerprint = sha256(f"{packing} {self.fingerprint}".encode()).hexdigest()
        self.packings: dict[str, Packing] = {
            split: PACKINGS[packing](stream, None if starts is None else starts[split], tokenizer.end, seq_len)
            for split, stream in streams.items()
        }

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        return self.packings[split].num_rows

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index`, the same in every epoch: only the order of rows differs between epochs."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        return self.packings[split].row(index)


def to_stream(documents: Sequence[str], tokenizer: Tokenizer) -> NDArray[np.unsignedinteger]:
    """Return the stream `end d1 end d2 ... end` [t], in the smallest unsigned dtype that holds the vocabulary."""
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    end = np.array([tokenizer.end], dtype=dtype)
    # cast part by part: encoders return int64, four times the memory of the stream
    parts = [end]
    for document in documents:
        parts += [tokenizer.encode(part).astype(dtype) for part in split_parts(document)]
        parts.append(end)
    return np.concatenate(parts)


def _require_one_row(stream: Stream, seq_len: int, where: str) -> None:
    num_targets = len(stream) - 1
    if num_targets < seq_len:
        raise DataError(
            f"{where}: {num_targets} tokens are fewer than one row of data.seq_len={seq_len}; "
            f"use a longer text, or at most data.seq_len={num_targets}"
        )


def _fingerprint(streams: Mapping[str, Stream], tokenizer: Tokenizer) -> str:
    digest = sha256(tokenizer.fingerprint.encode())
    for split in SPLITS:
        digest.update(f"{split} {len(streams[split])}\n".encode())
        digest.update(streams[split][:].tobytes())
    return digest.hexdigest()
