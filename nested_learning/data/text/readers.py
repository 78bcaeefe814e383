"""Stream documents from files and data sets of any size: text, JSON lines, CSV, parquet, Arrow, Hugging Face."""

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from nested_learning.data.text.documents import as_data_error, encoding_of, find_files, to_text
from nested_learning.data.text.json_lines import is_json_lines, is_unicode, numbered, parse_object
from nested_learning.errors import ConfigError, DataError

HUB = "hf:"
JSON_LINES = (".jsonl", ".ndjson", ".json")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
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

    def __post_init__(self) -> None:
        if self.separator == "":
            raise ConfigError("--separator '': has no character; give the text between documents, or leave it out")

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
            elif kind in DELIMITERS:
                yield from _read_csv(path, self.field, DELIMITERS[kind], skip)
            elif self.separator is not None:
                yield from islice(_read_separated(path, self.separator), skip, None)
            elif skip == 0:
                with _open(path) as file:
                    yield _plain(to_text(file.read()), path)


def find_inputs(sources: Sequence[str]) -> list[Input]:
    """Return the inputs that `sources` name, in the order given and sorted by name within a folder or glob.

    Raises ConfigError for a source that does not exist, and for a folder or glob without files.
    """
    inputs = []
    for source in sources:
        if source == HUB:
            raise ConfigError(f"{source}: names no data set; {ALLOWED}")
        if source.startswith(HUB):
            inputs.append(Input(source, None))
            continue
        with as_data_error(source, ALLOWED):
            files = [str(path) for path in without_notes(find_files(source))]
        if not files:
            raise ConfigError(f"{source}: no such file, or a folder without files; {ALLOWED}")
        inputs += [Input(name, Path(name).stat().st_size) for name in files]
    return inputs


def without_notes(files: Sequence[Path]) -> list[Path]:
    """Return `files` without those that `datasets` keeps next to its tables, which are no text of the data set.

    Raises ConfigError for a saved data set with several splits, of which one must be chosen.
    """
    tables = {file.parent for file in files if file.suffix == ".arrow"}
    kept = []
    for file in files:
        if file.name == "dataset_dict.json":
            splits = sorted(folder.name for folder in tables if folder.parent == file.parent)
            if len(splits) > 1:
                raise ConfigError(
                    f"{file.parent}: has the splits {', '.join(splits)}; give one, such as {file.parent / splits[-1]}"
                )
        elif file.parent not in tables or not _is_note(file):
            kept.append(file)
    return kept


def _is_note(file: Path) -> bool:
    # a cache holds what `map` and `filter` once made of the table
    return file.name in ("dataset_info.json", "state.json") or file.name.startswith("cache-")


def _kind(name: str) -> str:
    """Return the format of a file by its suffix, ignoring a suffix of compression."""
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix


@contextmanager
def _as_data_error(name: str) -> Iterator[None]:
    """Turn what the reading libraries raise for bad input into a DataError that begins with `name`."""
    try:
        yield
    # NotImplementedError: parquet whose compression this build of its library lacks
    except (OSError, EOFError, ValueError, NotImplementedError, zlib.error, csv.Error) as error:
        raise DataError(
            f"{name}: cannot be read ({type(error).__name__}: {error}); repair the file, or leave it out"
        ) from error


def _open(path: Path) -> io.BufferedReader:
    """Open a file for reading, decompressed."""
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.open(path))
    return io.BufferedReader(_Zstandard(path), 1 << 20) if path.suffix.lower() == ".zst" else path.open("rb")


def _open_text(path: Path) -> io.TextIOWrapper:
    """Open a file for reading as text, decompressed. Bytes that are not text become lone surrogates."""
    file = _open(path)
    return io.TextIOWrapper(file, encoding_of(file.peek(4)[:4]), "surrogateescape", newline="\n")


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
    """Yield the texts between separators, without line ends around them. Empty texts are no documents.

    A line end in the separator is also found as the two characters that it is in files of Windows.
    """
    between = re.compile(re.escape(separator).replace("\\\n", "\r?\n"))
    with _open_text(path) as file:
        unfinished = ""
        while text := file.read(CHARACTERS):
            # the last text may continue in the next read, and a separator may be split between two reads
            *complete, unfinished = between.split(unfinished + text)
            yield from _strip(complete)
        yield from _strip([unfinished])


def _strip(texts: list[str]) -> Documents:
    for text in texts:
        stripped = text.strip("\r\n")
        if stripped:
            yield _usable(stripped)


def _read_lines(path: Path, field: str, skip: int) -> Documents:
    with _open_text(path) as file:
        # skipped lines are not parsed
        for place, line in islice(numbered(file, str(path)), skip, None):
            values = parse_object(line, place)
            if field not in values:
                keys = ", ".join(values) or "none"
                raise DataError(f"{place}: no key {field!r}, its keys are {keys}; give the key of the text as --field")
            yield _text_of(values[field], place)


def _read_csv(path: Path, field: str, delimiter: str, skip: int) -> Documents:
    # the default limit, 131,072 characters, is less than a long document
    csv.field_size_limit(sys.maxsize)
    with _open_text(path) as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        _require_column(path, field, list(rows.fieldnames or []))
        for row in islice(rows, skip, None):
            yield _text_of(row[field], f"{path}, line {rows.line_num}")


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


def _read_batches(batches: Iterable[Any], field: str, skip: int, path: Path | str) -> Documents:
    for batch in batches:
        taken = min(skip, batch.num_rows)
        skip -= taken
        for text in _as_bytes(batch.slice(taken).column(field)).to_pylist():
            yield _text_of(text, f"{path}, column {field}")


def _as_bytes(column: Any) -> Any:
    """Return a column of text as one of bytes, because Arrow's own conversion fails at the first that is not utf-8."""
    arrow = _library("pyarrow")
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_text = arrow.types.is_string(column.type) or arrow.types.is_string_view(column.type)
    if is_text or arrow.types.is_large_string(column.type):
        return column.cast(arrow.large_binary())
    return column


def _require_column(path: Path | str, field: str, columns: list[str]) -> None:
    if columns.count(field) != 1:
        problem = f"no column {field!r}, only" if field not in columns else f"more than one column {field!r} of"
        raise DataError(f"{path}: {problem} {', '.join(columns)}; give the column of the text as --field")


def _read_hub(name: str, field: str, skip: int) -> Documents:
    """Stream a Hugging Face data set, from the hub or from a local folder, in its own order."""
    path, *options = name.removeprefix(HUB).split(":")
    path, _, revision = path.partition("@")
    config = options[0] if options and options[0] else None
    split = options[1] if len(options) > 1 else "train"
    library = _library("datasets")
    rows = library.load_dataset(path, config, split=split, revision=revision or None, streaming=True)
    rows = rows.skip(skip) if skip else rows
    for table in rows.with_format("arrow").iter(ROWS):
        _require_column(name, field, table.column_names)
        yield from _read_batches([table], field, 0, name)


def _text_of(value: Any, place: str) -> str | None:
    """Return `value` if it is usable text, None if it is null, empty or malformed. Raises DataError for other types."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"{place}: is {type(value).__name__}, not text; give another --field")
    return _usable(value)


def _usable(text: str) -> str | None:
    """Return `text`, or None where it is empty, has a NUL, or was not utf-8."""
    return text if text and "\0" not in text and is_unicode(text) else None


def _plain(text: str | None, path: Path) -> str | None:
    if text is not None and is_json_lines(text):
        raise DataError(f"{path}: holds JSON lines; rename it to {path.stem}.jsonl, so that its texts are read")
    return text


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
        raise ConfigError(f"reading this needs {package}; pip install -e '.[{extra}]'") from error
    return pyarrow.parquet if name == "pyarrow.parquet" else pyarrow
