"""Writes a token shard: under a name that nobody reads until it is whole and on the disk."""

from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.text.encoding import Encoded
from nested_learning.data.text.shards import Shard
from nested_learning.files import sync

# names of what is not whole begin so
DRAFT = ".draft_"


class ShardWriter:
    """Takes the tokens of one split; `close` makes a shard of them. Arguments: folder, part, split."""

    def __init__(self, folder: Path, part: int, split: str) -> None:
        self._folder, self._name, self._split = folder, f"{split}_{part:05d}", split
        self._file: BinaryIO | None = None
        self._hash = sha256()
        self._starts: list[NDArray[np.int64]] = []
        self.tokens, self.bytes = 0, 0

    def add(self, encoded: Encoded) -> None:
        """Write documents after those that are there."""
        if not len(encoded.tokens):
            return
        if self._file is None:
            self._file = (self._folder / f"{DRAFT}{self._name}.tokens").open("wb")
        data = encoded.tokens.tobytes()
        self._file.write(data)
        self._hash.update(data)
        self._starts.append(encoded.starts + self.tokens)
        self.tokens += len(encoded.tokens)
        self.bytes += encoded.num_bytes

    def close(self) -> list[Shard]:
        """Put the files in their places and return the shard, or nothing where there are no documents."""
        if self._file is None:
            return []
        self._file.close()
        starts = np.concatenate(self._starts).astype("<i8")
        (self._folder / f"{DRAFT}{self._name}.documents").write_bytes(starts.tobytes())
        for suffix in (".tokens", ".documents"):
            draft = self._folder / f"{DRAFT}{self._name}{suffix}"
            sync(draft)
            draft.replace(self._folder / f"{self._name}{suffix}")
        sync(self._folder)
        return [
            Shard(
                name=self._name,
                split=self._split,
                tokens=self.tokens,
                documents=len(starts),
                bytes=self.bytes,
                tokens_sha256=self._hash.hexdigest(),
                documents_sha256=sha256(starts.tobytes()).hexdigest(),
            )
        ]
