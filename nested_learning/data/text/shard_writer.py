"""Write token shards crash-safe: under a draft name, renamed when the shard is complete and synced to disk."""

from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.text.encoding import Encoded
from nested_learning.data.text.shards import Shard
from nested_learning.files import sync

# prefix of unfinished files; whatever has it after a kill is removed
DRAFT = ".draft_"


class ShardWriter:
    """Collects the documents of one split and part; `close` makes them a shard. The file is opened at the first one."""

    def __init__(self, folder: Path, part: int, split: str) -> None:
        self._folder, self._name, self._split = folder, f"{split}_{part:05d}", split
        self._file: BinaryIO | None = None
        self._hash = sha256()
        self._starts: list[NDArray[np.int64]] = []
        self.tokens, self.bytes = 0, 0

    def add(self, encoded: Encoded) -> None:
        """Append documents to the shard."""
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
        """Finish the files and return the shard; an empty list where no documents were added."""
        if self._file is None:
            return []
        self._file.close()
        starts = np.concatenate(self._starts).astype("<i8")
        (self._folder / f"{DRAFT}{self._name}.documents").write_bytes(starts.tobytes())
        for suffix in (".tokens", ".documents"):
            draft = self._folder / f"{DRAFT}{self._name}{suffix}"
            # contents before name: after a power failure a file with its final name is complete
            sync(draft)
            draft.replace(self._folder / f"{self._name}{suffix}")
        # the renames themselves are on disk only when the folder is
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
