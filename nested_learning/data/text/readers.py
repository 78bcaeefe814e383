"""Documents from files and data sets of any size, one by one: text, JSON lines, parquet, Arrow, Hugging Face."""

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from nested_learning.data.text.documents import to_text, walk_files
from nested_learning.errors import ConfigError, DataError

HUB = "hf:"
JSON_LINES = (".jsonl", ".ndjson", ".json")
PACKED = (".gz", ".zst")
# rows of a table that are held at a time; characters of a file of many documents
ROWS, CHARACTERS = 1024, 1 << 20

# a document, or None for what is no text: empty, null, not utf-8, with a NUL
Documents = Iterator[str | None]

ALLOWED = "give a file, a folder, a glob, or hf:<data set>[@revision][:config][:split]"


class Input(NamedTuple):
    """What documents are read from: the name of a file and its bytes, or of a data set, whose bytes are not known."""

    name: str
    size: int | None


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How documents are found in an input.

    `field`: the column of a table, or the key of a line, that holds the text. `separator`: what stands between the
    documents of a text file, with the line ends around it; None: a text file is one document.
    """

    field: str = "text"
    separator: str | None = None

    def read(self, name: str, skip: int = 0) -> Documents:
        """Yield the documents of the input `name` but for the first `skip`. Raises DataError, with the place."""
        if name.startswith(HUB):
            with _reading(name):
                yield from _read_hub(name, self.field, skip)
            return
        path, kind = Path(name), _kind(name)
        with _reading(name):
            if kind == ".parquet":
                yield from _read_parquet(path, self.field, skip)
            elif kind == ".arrow":
                yield from _read_arrow(path, self.field, skip)
            elif kind in JSON_LINES:
                yield from _read_lines(path, self.field, skip)
            elif self.separator is not None:
                yield from islice(_read_separated(path, self.separator), skip, None)
            elif skip == 0:
                with _open(path) as file:
                    yield to_text(file.read())


def find_inputs(sources: Sequence[str]) -> list[Input]:
    """Return the inputs that `sources` name: as given, and by name within a folder or glob.

    Raises ConfigError for a source that is not there, or a folder or glob with nothing in it.
    """
    found = []
    for source in sources:
        if source.startswith(HUB):
            found.append(Input(source, None))
            continue
        files = [str(path) for path in _find_files(source)]
        if not files:
            raise ConfigError(f"{source}: no such file, or nothing in it; {ALLOWED}")
        found += [Input(name, Path(name).stat().st_size) for name in files]
    return found


def _find_files(source: str) -> Iterable[Path]:
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return walk_files(path)
    if has_magic(source):
        # pathlib's own glob takes no absolute pattern
        return filter(Path.is_file, map(Path, sorted(glob(str(path), recursive=True))))  # noqa: PTH207
    return []


def _kind(name: str) -> str:
    """Return how the contents of a file are written: its ending, that of compression left out."""
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix in PACKED else path.suffix


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what the libraries raise about what they read into a DataError that begins with `name`."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{name}: cannot be read ({type(error).__name__}: {error}); mend it, or leave it out"
        ) from error


def _open(path: Path) -> io.BufferedReader:
    """Open a file for reading, decompressed."""
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.open(path))
    return io.BufferedReader(_Zstandard(path), 1 << 20) if path.suffix.lower() == ".zst" else path.open("rb")


class _Zstandard(io.RawIOBase):
    """The decompressed bytes of a .zst file: all its frames, each of which must be whole.

    The library's own reader of files stops without a word after the first frame, or where the file breaks off.
    """

    def __init__(self, path: Path) -> None:
        self._library = _library("zstandard")
        self._file = path.open("rb")
        self._frame = self._library.ZstdDecompressor().decompressobj()
        self._is_inside, self._packed, self._ready = False, b"", b""

    def readable(self) -> bool:
        """Yes: that is all it is for."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer`; return how many bytes there were, 0 at the end. Raises OSError for a damaged file."""
        while not self._ready:
            piece = self._packed or self._file.read(1 << 17)
            if piece:
                self._unpack(piece)
            elif self._is_inside:
                raise OSError("it breaks off inside a frame")
            else:
                return 0
        taken, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()

    def _unpack(self, piece: bytes) -> None:
        try:
            self._ready = self._frame.decompress(piece)
        except self._library.ZstdError as error:
            raise OSError(str(error)) from error
        self._is_inside, self._packed = not self._frame.eof, self._frame.unused_data
        if not self._is_inside:
            self._frame = self._library.ZstdDecompressor().decompressobj()


def _read_separated(path: Path, separator: str) -> Documents:
    """Yield what stands between separators, line ends around it left out; what is empty is no document."""
    with io.TextIOWrapper(_open(path), encoding="utf-8", newline="") as file:
        rest = ""
        while piece := file.read(CHARACTERS):
            *whole, rest = (rest + piece).split(separator)
            yield from _strip(whole)
        yield from _strip([rest])


def _strip(texts: list[str]) -> Documents:
    for text in texts:
        stripped = text.strip("\r\n")
        if stripped:
            yield None if "\0" in stripped else stripped


def _read_lines(path: Path, field: str, skip: int) -> Documents:
    with _open(path) as file:
        written = ((number, line) for number, line in enumerate(file, start=1) if not line.isspace())
        for number, line in islice(written, skip, None):
            try:
                values = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: no JSON ({error}); each line must be an object") from error
            if not isinstance(values, dict) or field not in values:
                keys = f"its keys are {', '.join(values)}" if isinstance(values, dict) else "it is no object"
                raise DataError(f"{path}, line {number}: no key {field!r}, {keys}; give the one of the text as --field")
            yield _text_of(values[field], f"{path}, line {number}")


def _read_parquet(path: Path, field: str, skip: int) -> Documents:
    parquet = _library("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        _require_column(path, field, file.schema_arrow.names)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        first = 0
        # whole groups of rows are skipped without being read
        while first < len(sizes) and skip >= sizes[first]:
            skip -= sizes[first]
            first += 1
        groups = list(range(first, len(sizes)))
        batches = file.iter_batches(ROWS, row_groups=groups, columns=[field]) if groups else ()
        yield from _read_batches(batches, field, skip, path)


def _read_arrow(path: Path, field: str, skip: int) -> Documents:
    arrow = _library("pyarrow")
    with arrow.memory_map(str(path)) as file:
        try:
            # what `datasets` keeps is a stream, what others write a file, which has an index at its end
            table = arrow.ipc.open_file(file)
            batches: Iterable[Any] = (table.get_batch(i) for i in range(table.num_record_batches))
        except arrow.ArrowInvalid:
            file.seek(0)
            table = batches = arrow.ipc.open_stream(file)
        _require_column(path, field, table.schema.names)
        yield from _read_batches(batches, field, skip, path)


def _read_batches(batches: Iterable[Any], field: str, skip: int, path: Path) -> Documents:
    for batch in batches:
        taken = min(skip, batch.num_rows)
        skip -= taken
        for text in batch.slice(taken).column(field).to_pylist():
            yield _text_of(text, f"{path}, column {field}")


def _require_column(path: Path, field: str, columns: list[str]) -> None:
    if field not in columns:
        raise DataError(
            f"{path}: no column {field!r}, there are {', '.join(columns)}; give the one of the text as --field"
        )


def _read_hub(name: str, field: str, skip: int) -> Documents:
    """Stream a data set of Hugging Face, or one in a folder, in its own order."""
    place, *rest = name.removeprefix(HUB).split(":")
    place, _, revision = place.partition("@")
    config = rest[0] if rest and rest[0] else None
    split = rest[1] if len(rest) > 1 else "train"
    library = _library("datasets")
    rows = library.load_dataset(place, config, split=split, revision=revision or None, streaming=True)
    for row in rows.skip(skip) if skip else rows:
        if field not in row:
            raise DataError(
                f"{name}: no column {field!r}, there are {', '.join(row)}; give the one of the text as --field"
            )
        yield _text_of(row[field], f"{name}, column {field}")


def _text_of(value: Any, where: str) -> str | None:
    """Return `value` if it is text, None if it is none. Raises DataError where it is something else."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"{where}: {type(value).__name__} where text is expected; give another --field")
    return value if value and "\0" not in value and _is_unicode(value) else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _library(name: str) -> Any:
    """Import what reads a kind of file. Raises ConfigError with what to install."""
    try:
        match name:
            case "zstandard":
                import zstandard

                return zstandard
            case "datasets":
                import datasets

                return datasets
        import pyarrow.parquet
    except ImportError as error:
        package, _, _ = name.partition(".")
        extra = "hf" if name == "datasets" else "data"
        raise ConfigError(f"{package} is needed to read this: pip install nested-learning[{extra}]") from error
    return pyarrow.parquet if name == "pyarrow.parquet" else pyarrow
