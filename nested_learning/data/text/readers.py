"""Stream documents from files and data sets of any size: text, JSON lines, parquet, Arrow, Hugging Face."""

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
COMPRESSED = (".gz", ".zst")
# rows of a table, and characters of a text file with separators, that are in memory at a time
ROWS, CHARACTERS = 1024, 1 << 20

# a document, or None for one that is not text: empty, null, not utf-8, or with a NUL
Documents = Iterator[str | None]

ALLOWED = "give a file, a folder, a glob, or hf:<data set>[@revision][:config][:split]"


class Input(NamedTuple):
    """A file and its size in bytes, or a data set of Hugging Face, whose size is not known."""

    name: str
    size: int | None


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How documents are read from an input.

    `field`: the column of a table or the key of a JSON line that holds the text. `separator`: the text between two
    documents of a text file, line ends around it removed; None: a text file is one document.
    """

    field: str = "text"
    separator: str | None = None

    def read(self, name: str, skip: int = 0) -> Documents:
        """Yield the documents of the input `name` after the first `skip`. Raises DataError that names file and line."""
        if name.startswith(HUB):
            with _as_data_error(name):
                yield from _read_hub(name, self.field, skip)
            return
        path, kind = Path(name), _kind(name)
        with _as_data_error(name):
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
    """Return the inputs that `sources` name, in the order given and sorted by name within a folder or glob.

    Raises ConfigError for a source that does not exist, and for a folder or glob without files.
    """
    inputs = []
    for source in sources:
        if source.startswith(HUB):
            inputs.append(Input(source, None))
            continue
        files = [str(path) for path in _find_files(source)]
        if not files:
            raise ConfigError(f"{source}: no such file, or a folder without files; {ALLOWED}")
        inputs += [Input(name, Path(name).stat().st_size) for name in files]
    return inputs


def _find_files(source: str) -> Iterable[Path]:
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return walk_files(path)
    if has_magic(source):
        # Path.glob does not accept absolute patterns
        return filter(Path.is_file, map(Path, sorted(glob(str(path), recursive=True))))  # noqa: PTH207
    return []


def _kind(name: str) -> str:
    """Return the format of a file by its suffix, ignoring a suffix of compression."""
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix


@contextmanager
def _as_data_error(name: str) -> Iterator[None]:
    """Turn what the reading libraries raise for bad input into a DataError that begins with `name`."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{name}: cannot be read ({type(error).__name__}: {error}); repair the file, or leave it out"
        ) from error


def _open(path: Path) -> io.BufferedReader:
    """Open a file for reading, decompressed."""
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.open(path))
    return io.BufferedReader(_Zstandard(path), 1 << 20) if path.suffix.lower() == ".zst" else path.open("rb")


class _Zstandard(io.RawIOBase):
    """The decompressed bytes of all frames of a .zst file. Raises OSError for an incomplete frame.

    Needed because the file reader of `zstandard` ends silently after the first frame and at a truncated one.
    """

    def __init__(self, path: Path) -> None:
        self._library = _library("zstandard")
        self._file = path.open("rb")
        self._frame = self._library.ZstdDecompressor().decompressobj()
        # whether a frame is incomplete, compressed bytes read behind its end, decompressed bytes not yet returned
        self._is_inside, self._compressed, self._ready = False, b"", b""

    def readable(self) -> bool:
        """Always true; `io.BufferedReader` requires it."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Write bytes into `buffer` and return their number, 0 at the end. Raises OSError for a damaged file."""
        # a compressed block may decompress to nothing yet; returning 0 would mean the end of the file
        while not self._ready:
            data = self._compressed or self._file.read(1 << 17)
            if data:
                self._decompress(data)
            elif self._is_inside:
                raise OSError("the file ends inside a frame")
            else:
                return 0
        taken, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        """Close the underlying file as well."""
        self._file.close()
        super().close()

    def _decompress(self, data: bytes) -> None:
        try:
            self._ready = self._frame.decompress(data)
        except self._library.ZstdError as error:
            raise OSError(str(error)) from error
        self._is_inside, self._compressed = not self._frame.eof, self._frame.unused_data
        # a decompressor object ends with its frame; the next frame needs a new one
        if not self._is_inside:
            self._frame = self._library.ZstdDecompressor().decompressobj()


def _read_separated(path: Path, separator: str) -> Documents:
    """Yield the texts between separators, without line ends around them. Empty texts are no documents."""
    with io.TextIOWrapper(_open(path), encoding="utf-8", newline="") as file:
        unfinished = ""
        while text := file.read(CHARACTERS):
            # the last text may continue in the next read, and a separator may be split between two reads
            *complete, unfinished = (unfinished + text).split(separator)
            yield from _strip(complete)
        yield from _strip([unfinished])


def _strip(texts: list[str]) -> Documents:
    for text in texts:
        stripped = text.strip("\r\n")
        if stripped:
            yield None if "\0" in stripped else stripped


def _read_lines(path: Path, field: str, skip: int) -> Documents:
    with _open(path) as file:
        lines = ((number, line) for number, line in enumerate(file, start=1) if not line.isspace())
        # skipped lines are not parsed
        for number, line in islice(lines, skip, None):
            try:
                values = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error}); each line must be an object") from error
            if not isinstance(values, dict) or field not in values:
                keys = f"its keys are {', '.join(values)}" if isinstance(values, dict) else "it is not an object"
                raise DataError(f"{path}, line {number}: no key {field!r}, {keys}; give the key of the text as --field")
            yield _text_of(values[field], f"{path}, line {number}")


def _read_parquet(path: Path, field: str, skip: int) -> Documents:
    parquet = _library("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        _require_column(path, field, file.schema_arrow.names)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        first = 0
        # resuming deep inside a large file: whole row groups are skipped without reading them
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
            # Arrow has two formats: `datasets` caches streams, other programs write files, which end with an index
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
            f"{path}: no column {field!r}, only {', '.join(columns)}; give the column of the text as --field"
        )


def _read_hub(name: str, field: str, skip: int) -> Documents:
    """Stream a Hugging Face data set, from the hub or from a local folder, in its own order."""
    path, *options = name.removeprefix(HUB).split(":")
    path, _, revision = path.partition("@")
    config = options[0] if options and options[0] else None
    split = options[1] if len(options) > 1 else "train"
    library = _library("datasets")
    rows = library.load_dataset(path, config, split=split, revision=revision or None, streaming=True)
    for row in rows.skip(skip) if skip else rows:
        if field not in row:
            raise DataError(
                f"{name}: no column {field!r}, only {', '.join(row)}; give the column of the text as --field"
            )
        yield _text_of(row[field], f"{name}, column {field}")


def _text_of(value: Any, where: str) -> str | None:
    """Return `value` if it is usable text, None if it is null, empty or malformed. Raises DataError for other types."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"{where}: is {type(value).__name__}, not text; give another --field")
    return value if value and "\0" not in value and _is_unicode(value) else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _library(name: str) -> Any:
    """Import an optional library. Raises ConfigError that says what to install."""
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
        raise ConfigError(f"reading this needs {package}; pip install nested-learning[{extra}]") from error
    return pyarrow.parquet if name == "pyarrow.parquet" else pyarrow
