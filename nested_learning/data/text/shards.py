"""Token shards: a folder of tokens and of where documents begin, as raw numbers, with the sha256 of all of it.

`manifest.json` says what the folder holds; of each split there are `<split>_00000.tokens`, little-endian uint16 or
uint32 `end d1 end d2 ...`, and `<split>_00000.documents`, int64, where each `end` is in that file. The `end` that
closes the last document of a split is in no file.
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
    """One shard of a split: its files are `<name>.tokens` and `<name>.documents`; the hashes are theirs.

    `bytes`: of the text, in utf-8.
    """

    name: str
    split: str
    tokens: int
    documents: int
    bytes: int
    tokens_sha256: str
    documents_sha256: str

    def files(self, folder: Path) -> list[tuple[Path, str]]:
        """Return the files with their hashes."""
        return [
            (folder / f"{self.name}.tokens", self.tokens_sha256),
            (folder / f"{self.name}.documents", self.documents_sha256),
        ]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder holds: the same text, tokenizer and sizes give the same shards, in however many processes.

    `tokenizer`: its fingerprint; `dtype`: of the tokens; `options`, `inputs`: what it was made with and from;
    `documents_read`: all, of which `left_out` were no text.
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
        """Return the sha256 of all that is read: the tokens, in order, and what they mean."""
        read = [self.tokenizer, [(shard.split, shard.tokens_sha256) for shard in self.shards]]
        return sha256(json.dumps(read).encode()).hexdigest()

    def of(self, split: str) -> list[Shard]:
        """Return the shards of `split`, in order."""
        return [shard for shard in self.shards if shard.split == split]

    def to_json(self) -> str:
        """Write what `read_manifest` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of `folder`. Raises DataError where there is none, or one that this version cannot read."""
    path = folder / MANIFEST
    fix = "give the folder that scripts/prepare_data.py wrote, when it is done"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise DataError(f"{path}: of another format than {FORMAT}; prepare the data again")
        shards = [convert_dataclass(shard, Shard, "shard") for shard in values.pop("shards")]
        return Manifest(**values, shards=shards)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, MisfitError) as error:
        raise DataError(f"{path}: no manifest of token shards ({type(error).__name__}: {error}); {fix}") from error


def find_damage(folder: Path, shard: Shard, dtype: str, *, by_hash: bool = True) -> str | None:
    """Return what is wrong with the files of a shard, None if nothing is; without `by_hash` look at sizes only."""
    sizes = (shard.tokens * np.dtype(dtype).itemsize, shard.documents * 8)
    for (path, sha), size in zip(shard.files(folder), sizes, strict=True):
        if not path.is_file():
            return f"{path}: missing"
        if path.stat().st_size != size:
            return f"{path}: {path.stat().st_size} bytes instead of {size}"
        if by_hash and hash_file(path) != sha:
            return f"{path}: its contents are not what was written (another sha256)"
    return None


def check(folder: Path, manifest: Manifest, *, by_hash: bool = True) -> None:
    """Raise DataError for the first file of `folder` that is not as the manifest says."""
    for shard in manifest.shards:
        damage = find_damage(folder, shard, manifest.dtype, by_hash=by_hash)
        if damage:
            raise DataError(f"{damage}; give the command that prepared it again: it makes anew what is not whole")


class TokenStream:
    """The tokens of a split, `end d1 end d2 ... end`: shards mapped from the disk, cut and counted like one array."""

    def __init__(self, folder: Path, shards: list[Shard], dtype: str, end: int) -> None:
        # plain arrays are cut faster than what maps them
        self._pieces: list[NDArray[np.unsignedinteger]] = [
            np.memmap(shard.files(folder)[0][0], dtype=dtype, mode="r").view(np.ndarray) for shard in shards
        ]
        self._pieces.append(np.array([end], dtype=dtype))
        self._bounds = [0, *np.cumsum([len(piece) for piece in self._pieces]).tolist()]
        self._starts = [shard.files(folder)[1][0] for shard in shards]

    def __len__(self) -> int:
        """Count the tokens."""
        return self._bounds[-1]

    def __getitem__(self, stretch: slice, /) -> NDArray[np.unsignedinteger]:
        """Return a stretch of the tokens; one within a shard is not copied, and must not be written to."""
        start, stop, step = stretch.indices(len(self))
        assert step == 1, "tokens are read one by one"
        first = min(bisect_right(self._bounds, start), len(self._pieces)) - 1
        begin = self._bounds[first]
        if stop <= self._bounds[first + 1]:
            return self._pieces[first][start - begin : max(start, stop) - begin]
        last = bisect_right(self._bounds, stop - 1)
        pieces = zip(self._bounds[first:last], self._pieces[first:last], strict=True)
        return np.concatenate([piece[max(0, start - begin) : stop - begin] for begin, piece in pieces])

    def starts(self) -> NDArray[np.int64]:
        """Return where each document begins, at its `end`."""
        # the last piece, the closing end, opens no document
        begins = zip(self._starts, self._bounds[:-2], strict=True)
        return np.concatenate([np.fromfile(path, dtype="<i8") + begin for path, begin in begins])
