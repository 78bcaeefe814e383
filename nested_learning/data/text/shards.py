"""Token shards: a folder with the tokens of each split and the positions of its documents, in files of raw numbers.

`manifest.json` lists the shards and the sha256 of every file. `<split>_00000.tokens` holds `end d1 end d2 ...` as
little-endian uint16 or uint32; `<split>_00000.documents` holds the index of each `end` in it as int64. The `end` that
closes the last document of a split is in no file; `TokenStream` adds it.
"""

import json
from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nested_learning.errors import DataError
from nested_learning.files import hash_file
from nested_learning.typed import MisfitError, convert_dataclass

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard of a split, the files `<name>.tokens` and `<name>.documents` with their hashes.

    `tokens`, `documents`: their numbers. `bytes`: utf-8 bytes of the text.
    """

    name: str
    split: str
    tokens: int
    documents: int
    bytes: int
    tokens_sha256: str
    documents_sha256: str

    def files(self, folder: Path) -> list[tuple[Path, str]]:
        """Return the paths of the files with their hashes."""
        return [
            (folder / f"{self.name}.tokens", self.tokens_sha256),
            (folder / f"{self.name}.documents", self.documents_sha256),
        ]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of a folder of shards.

    `tokenizer`: its fingerprint. `dtype`: of the tokens. `options`, `inputs`: what the shards were made with and from.
    `documents_read`: all documents; `left_out` of them were not text.
    """

    format: int = FORMAT
    tokenizer: str
    dtype: str
    options: dict[str, Any]
    inputs: list[Any]
    documents_read: int
    left_out: int
    shards: list[Shard] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Return the sha256 of the tokenizer and of all tokens, in order."""
        read = [self.tokenizer, [(shard.split, shard.tokens_sha256) for shard in self.shards]]
        return sha256(json.dumps(read).encode()).hexdigest()

    def of(self, split: str) -> list[Shard]:
        """Return the shards of `split`, in order."""
        return [shard for shard in self.shards if shard.split == split]

    def to_json(self) -> str:
        """Return the contents of `manifest.json`."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of `folder`. Raises DataError where there is none, or one in another format."""
    path = folder / MANIFEST
    fix = "give a folder that scripts/prepare_data.py has completed"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise DataError(f"{path}: its format is not {FORMAT}; prepare the data again")
        shards = [convert_dataclass(shard, Shard, "shard") for shard in values.pop("shards")]
        return Manifest(**values, shards=shards)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, MisfitError) as error:
        raise DataError(f"{path}: no manifest of token shards ({type(error).__name__}: {error}); {fix}") from error


def find_damage(folder: Path, shard: Shard, dtype: str, *, by_hash: bool = True) -> str | None:
    """Describe the first defect in the files of a shard; None: intact. `by_hash=False`: sizes only."""
    # sizes first: they are cheap, and catch truncated files without hashing gigabytes
    sizes = (shard.tokens * np.dtype(dtype).itemsize, shard.documents * 8)
    for (path, sha), size in zip(shard.files(folder), sizes, strict=True):
        if not path.is_file():
            return f"{path}: missing"
        if path.stat().st_size != size:
            return f"{path}: {path.stat().st_size} bytes instead of {size}"
        if by_hash and hash_file(path) != sha:
            return f"{path}: its contents have changed since they were written (different sha256)"
    return None


def check(folder: Path, manifest: Manifest, *, by_hash: bool = True) -> None:
    """Raise DataError for the first file of `folder` that does not match the manifest."""
    for shard in manifest.shards:
        damage = find_damage(folder, shard, manifest.dtype, by_hash=by_hash)
        if damage:
            raise DataError(f"{damage}; run the command that prepared it again: it replaces damaged shards")


class TokenStream:
    """The tokens of a split, `end d1 end d2 ... end`: memory-mapped shards with the length and slicing of one array."""

    def __init__(self, folder: Path, shards: list[Shard], dtype: str, end: int) -> None:
        # slicing a plain view is faster than slicing the memmap itself
        self._arrays: list[NDArray[np.unsignedinteger]] = [
            np.memmap(shard.files(folder)[0][0], dtype=dtype, mode="r").view(np.ndarray) for shard in shards
        ]
        # the closing `end`, which no file holds
        self._arrays.append(np.array([end], dtype=dtype))
        self._bounds = [0, *np.cumsum([len(array) for array in self._arrays]).tolist()]
        self._starts = [shard.files(folder)[1][0] for shard in shards]

    def __len__(self) -> int:
        """Count the tokens."""
        return self._bounds[-1]

    def __getitem__(self, span: slice, /) -> NDArray[np.unsignedinteger]:
        """Return the tokens of a span. Within one shard it is a read-only view, otherwise a copy."""
        start, stop, step = span.indices(len(self))
        assert step == 1, "spans have step 1"
        first = min(bisect_right(self._bounds, start), len(self._arrays)) - 1
        offset = self._bounds[first]
        # nearly every row lies within one shard: no copy there
        if stop <= self._bounds[first + 1]:
            return self._arrays[first][start - offset : max(start, stop) - offset]
        # first and last array that the span touches; each contributes the part of the span that lies in it
        last = bisect_right(self._bounds, stop - 1)
        arrays = zip(self._bounds[first:last], self._arrays[first:last], strict=True)
        return np.concatenate([array[max(0, start - offset) : stop - offset] for offset, array in arrays])

    def starts(self) -> NDArray[np.int64]:
        """Return the position of the `end` that opens each document."""
        # the last array, the closing `end`, opens no document
        files = zip(self._starts, self._bounds[:-2], strict=True)
        return np.concatenate([np.fromfile(path, dtype="<i8") + offset for path, offset in files])
