"""`data=text data.path=...`: text files of the user."""

import codecs
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from nested_learning.data.text.documents import CONVERT, as_data_error, find_files, to_text
from nested_learning.data.text.json_lines import is_json_lines
from nested_learning.data.text.packed import DocumentsConfig, PackedText
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.typed import PathText

KEY = "data.path"
ALLOWED = "<utf-8 text file, folder or glob>"
# files that are no plain text, although some of them read as such: their format, by suffix
FORMATS = {
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".parquet": "parquet",
    ".arrow": "Arrow",
    ".gz": "compressed",
    ".zst": "compressed",
    ".tokens": "token shards",
}
# tables that a folder of plain text may hold too, such as the package.json of a program
TABLES = {".json": "JSON", ".csv": "a table", ".tsv": "a table"}


@dataclass(kw_only=True)
class TextConfig(DocumentsConfig):
    """Text files. `path`: a file, a folder (all files below it), a glob, or a list of these.

    Training and validation are split by file; of a single file the last part, from a line end, is validation. `span`:
    read only the bytes [start, end) of a single file, without the characters that these bounds cut.
    """

    name: str = "text"
    path: PathText | list[PathText] | None = None
    span: list[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError(f"data=text: data.path is missing; use {KEY}={ALLOWED}")
        if self.span is not None and not (len(self.span) == 2 and 0 <= self.span[0] < self.span[1]):
            raise ConfigError(
                f"data.span={self.span}: must be the first byte and the end, such as data.span=[0,1000000]"
            )

    def require_files(self, key: str = "data") -> None:
        """Raise DataError for a path that is missing or no plain text."""
        require_texts(self.path, f"{key}.path")

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> PackedText:
        """Read the files. `seed` only permutes rows. Raises DataError for a path that is missing, empty or not text."""
        paths = paths_of(self.path)
        documents = read_documents(paths) if self.span is None else [read_span(paths, self.span)]
        return self.pack(documents, f"{KEY}={','.join(paths)}", tokenizer)


def paths_of(paths: str | list[str] | None) -> list[str]:
    """Return the paths that the value of an option names."""
    return [paths] if isinstance(paths, str) else paths or []


def require_texts(paths: str | list[str] | None, key: str) -> None:
    """Raise DataError where `paths`, the value of the option `key`, name something missing or no plain text."""
    for name in paths_of(paths):
        find_texts(name, key)


def read_documents(paths: Sequence[str], key: str = KEY) -> list[str]:
    """Read every file that `paths`, the value of the option `key`, name: in this order, and by name within a folder.

    A file that is named itself must be text. Within a folder or glob, files that are empty or not utf-8 are left out
    with a warning, hidden files without one. Raises DataError for a path that is missing, has no text or holds records,
    and for any file that cannot be read.
    """
    return [text for name in paths for text in _read_path(name, key)]


def find_texts(name: str, key: str = KEY) -> list[Path]:
    """Return the files that `name` means. Raises DataError where there is none, or one is no plain text by its name."""
    where = f"{key}={name}"
    with as_data_error(where, f"use {key}={ALLOWED}"):
        files = find_files(name)
        is_folder = bool(name) and (Path(name).expanduser().is_dir() or has_magic(name))
    if not files:
        problem = "no text there, it has no files" if is_folder else "no such file or folder"
        raise DataError(f"{where}: {problem}; use {key}={ALLOWED}")
    for file in files:
        if file.suffix.lower() in FORMATS:
            raise _not_plain(file, FORMATS[file.suffix.lower()], name, key)
    if all(file.suffix.lower() in TABLES for file in files):
        raise _not_plain(files[0], TABLES[files[0].suffix.lower()], name, key)
    return files


def _not_plain(file: Path, what: str, name: str, key: str) -> DataError:
    if what == "token shards":
        return DataError(f"{key}={name}: holds {what}, not text; use data=tokens data.path={file.parent}")
    return DataError(
        f"{key}={name}: {file.name} is {what}, not plain text; run python scripts/prepare_data.py <shards> {name} and "
        f"use data=tokens data.path=<shards>, or name only text files, such as '{key}=docs/*.md'"
    )


def read_span(paths: Sequence[str], span: Sequence[int]) -> str:
    """Read the bytes [start, end) of the single file in `paths`, without the characters that these bounds cut.

    Raises DataError for anything but one file, for bytes that are not text, and for an `end` beyond the file.
    """
    start, end = span
    where = f"data.path={','.join(paths)} data.span=[{start},{end}]"
    (file, *others) = find_texts(paths[0])
    if len(paths) != 1 or others or not Path(paths[0]).expanduser().is_file():
        raise DataError(f"{where}: data.span needs a single file; give one file, or leave data.span out")
    with as_data_error(where):
        size = file.stat().st_size
        with file.open("rb") as opened:
            opened.seek(start)
            data = opened.read(end - start)
    if end > size:
        raise DataError(f"{where}: the file has {size} bytes; use at most data.span=[{start},{size}]")
    text = _decode_complete(data)
    if not text or "\0" in text:
        raise DataError(f"{where}: is not utf-8 text, or has a NUL; {CONVERT}")
    # a mark of the encoding is no part of the text
    return text.removeprefix("\ufeff")


def _decode_complete(data: bytes) -> str | None:
    """Decode `data` without an incomplete character at either end. Return None for what is not utf-8."""
    # continuation bytes are 0b10xxxxxx; the first other byte begins a character
    start = next((i for i, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
    try:
        # unlike bytes.decode, an incremental decoder waits for the rest of an incomplete character at the end
        return codecs.getincrementaldecoder("utf-8")().decode(data[start:])
    except UnicodeDecodeError:
        return None


def _read_path(name: str, key: str) -> list[str]:
    where = f"{key}={name}"
    files = find_texts(name, key)
    with as_data_error(where, f"make it readable, or use {key}={ALLOWED}"):
        texts = {path: to_text(path.read_bytes()) for path in files}
    documents = {path: text for path, text in texts.items() if text is not None}
    for path, text in documents.items():
        if is_json_lines(text):
            raise _not_plain(path, "JSON lines", name, key)
    left_out = [path for path in files if path not in documents]
    if not documents:
        if Path(name).expanduser().is_file():
            problem = f"is not utf-8 text, or has a NUL; {CONVERT}" if files[0].stat().st_size else "is empty"
        else:
            problem = f"no text there, all {len(left_out)} files are empty or not utf-8"
        raise DataError(f"{where}: {problem}; use {key}={ALLOWED}")
    if left_out:
        logging.getLogger(__name__).warning(
            "warning: %s: left out %d of %d files, empty or not utf-8 text: %s ...",
            *(where, len(left_out), len(texts), left_out[0]),
        )
    return list(documents.values())
