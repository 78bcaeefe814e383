"""`data=text data.path=...`: text files of the user."""

import codecs
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from nested_learning.data.text.documents import as_data_error, to_text, walk_files
from nested_learning.data.text.packed import DocumentsConfig, PackedText
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError

ALLOWED = "use data.path=<utf-8 text file, folder or glob>"


@dataclass(kw_only=True)
class TextConfig(DocumentsConfig):
    """Text files. `path`: a file, a folder (all files below it), a glob, or a list of these.

    Training and validation are split by file; of a single file the last part, from a line end, is validation. `span`:
    read only the bytes [start, end) of a single file, without the characters that these bounds cut.
    """

    name: str = "text"
    path: str | list[str] | None = None
    span: list[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError(f"data=text: data.path is missing; {ALLOWED}")
        if self.span is not None and not (len(self.span) == 2 and 0 <= self.span[0] < self.span[1]):
            raise ConfigError(
                f"data.span={self.span}: must be the first byte and the end, such as data.span=[0,1000000]"
            )

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> PackedText:
        """Read the files. `seed` only permutes rows. Raises DataError for a path that is missing, empty or not text."""
        paths = [self.path] if isinstance(self.path, str) else self.path or []
        documents = read_documents(paths) if self.span is None else [read_span(paths, self.span)]
        return self.pack(documents, f"data.path={','.join(paths)}", tokenizer)


def read_documents(paths: Iterable[str]) -> list[str]:
    """Read every file that `paths` name, in the order given and sorted by name within a folder or glob.

    A file that is named itself must be text. Within a folder or glob, files that are empty or not utf-8 are left out
    with a warning, hidden files without one. Raises DataError for a path that is missing or has no text, and for any
    file that cannot be read.
    """
    documents: list[str] = []
    for name in paths:
        with as_data_error(f"data.path={name}"):
            documents += _read_path(name)
    return documents


def read_span(paths: Sequence[str], span: Sequence[int]) -> str:
    """Read the bytes [start, end) of the single file in `paths`, without the characters that these bounds cut.

    Raises DataError for anything but one file, for bytes that are not text, and for an `end` beyond the file.
    """
    start, end = span
    where = f"data.path={','.join(paths)} data.span=[{start},{end}]"
    file = Path(paths[0]).expanduser()
    if len(paths) != 1 or not file.is_file():
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
        raise DataError(f"{where}: is not utf-8 text; {ALLOWED}")
    return text


def _decode_complete(data: bytes) -> str | None:
    """Decode `data` without an incomplete character at either end. Return None for what is not utf-8."""
    # continuation bytes are 0b10xxxxxx; the first other byte begins a character
    start = next((i for i, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
    try:
        # unlike bytes.decode, an incremental decoder waits for the rest of an incomplete character at the end
        return codecs.getincrementaldecoder("utf-8")().decode(data[start:])
    except UnicodeDecodeError:
        return None


def _read_path(name: str) -> list[str]:
    path = Path(name).expanduser()
    if path.is_file():
        return [_read_file(path, name)]
    if path.is_dir():
        return _read_files(walk_files(path), name)
    if has_magic(name):
        # Path.glob does not accept absolute patterns
        matches = sorted(glob(str(path), recursive=True))  # noqa: PTH207
        return _read_files((match for match in map(Path, matches) if match.is_file()), name)
    raise DataError(f"data.path={name}: no such file or folder; {ALLOWED}")


def _read_file(path: Path, name: str) -> str:
    data = path.read_bytes()
    text = to_text(data)
    if text is None:
        problem = "is not utf-8 text" if data else "is empty"
        raise DataError(f"data.path={name}: {problem}; {ALLOWED}")
    return text


def _read_files(files: Iterable[Path], name: str) -> list[str]:
    """Read the files of a folder or glob, given as `name`, and leave out what is not text."""
    texts = {path: to_text(path.read_bytes()) for path in files}
    documents = [text for text in texts.values() if text is not None]
    left_out = [path for path, text in texts.items() if text is None]
    if not documents:
        reason = f"all {len(left_out)} files are empty or not utf-8" if left_out else "it has no files"
        raise DataError(f"data.path={name}: no text there, {reason}; {ALLOWED}")
    if left_out:
        logging.getLogger(__name__).warning(
            "warning: data.path=%s: left out %d of %d files, empty or not utf-8 text: %s ...",
            *(name, len(left_out), len(texts), left_out[0]),
        )
    return documents
