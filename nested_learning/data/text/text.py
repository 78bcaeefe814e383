"""`data=text data.path=...`: the user's own text files."""

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
    """Text files. `path`: a file, a folder (all files below it), a glob (the files it matches), or a list of these.

    Training and validation are split by file; of a single file the last part is validation, cut at a line end. `span`:
    of a single file, the bytes from one number to another (without it) are read; letters that they cut are left out.
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
                f"data.span={self.span}: must be where to begin and to end, such as data.span=[0,1000000]"
            )

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> PackedText:
        """Read the files; `seed` only orders rows. Raises DataError for a path that is missing, empty or no text."""
        paths = [self.path] if isinstance(self.path, str) else self.path or []
        documents = read_documents(paths) if self.span is None else [read_span(paths, self.span)]
        return self.pack(documents, f"data.path={','.join(paths)}", tokenizer)


def read_documents(paths: Iterable[str]) -> list[str]:
    """Read every file that `paths` name, in the order given and by name within a folder or glob.

    A file named itself must be text. In a folder or glob, files that are empty or no utf-8 text are left out, with a
    warning that counts them, and names beginning with a dot without one; a file that cannot be read is never left out.
    Raises DataError for a path that is missing, cannot be read, or gives no text.
    """
    documents: list[str] = []
    for name in paths:
        with as_data_error(f"data.path={name}"):
            documents += _read(name)
    return documents


def read_span(paths: Sequence[str], span: Sequence[int]) -> str:
    """Read the bytes [start, end) of the one file that `paths` name, without the letters that they cut.

    Raises DataError where there is no single file, or the bytes are no text or beyond its end.
    """
    start, end = span
    where = f"data.path={','.join(paths)} data.span=[{start},{end}]"
    file = Path(paths[0]).expanduser()
    if len(paths) != 1 or not file.is_file():
        raise DataError(f"{where}: not one file; {ALLOWED}, a single file with data.span")
    with as_data_error(where):
        size = file.stat().st_size
        with file.open("rb") as opened:
            opened.seek(start)
            data = opened.read(end - start)
    if end > size:
        raise DataError(f"{where}: the file has {size} bytes; use at most data.span=[{start},{size}]")
    text = _whole_letters(data)
    if not text or "\0" in text:
        raise DataError(f"{where}: is not utf-8 text; {ALLOWED}")
    return text


def _whole_letters(data: bytes) -> str | None:
    """Return `data` as text but for the end of a letter at its beginning and the beginning of one at its end."""
    inside = next((place for place, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data[inside:])
    except UnicodeDecodeError:
        return None


def _read(name: str) -> list[str]:
    path = Path(name).expanduser()
    if path.is_file():
        return [_read_file(path, name)]
    if path.is_dir():
        return _read_all(walk_files(path), name)
    if has_magic(name):
        # pathlib's own glob takes no absolute pattern
        matches = sorted(glob(str(path), recursive=True))  # noqa: PTH207
        return _read_all((match for match in map(Path, matches) if match.is_file()), name)
    raise DataError(f"data.path={name}: no such file or folder; {ALLOWED}")


def _read_file(path: Path, name: str) -> str:
    data = path.read_bytes()
    text = to_text(data)
    if text is None:
        problem = "is not utf-8 text" if data else "is empty"
        raise DataError(f"data.path={name}: {problem}; {ALLOWED}")
    return text


def _read_all(files: Iterable[Path], name: str) -> list[str]:
    texts = {path: to_text(path.read_bytes()) for path in files}
    documents = [text for text in texts.values() if text is not None]
    left_out = [path for path, text in texts.items() if text is None]
    if not documents:
        found = f"all {len(left_out)} files are empty or not utf-8" if left_out else "no file found"
        raise DataError(f"data.path={name}: no text there, {found}; {ALLOWED}")
    if left_out:
        logging.getLogger(__name__).warning(
            "warning: data.path=%s: left out %d of %d files, empty or not utf-8 text: %s ...",
            *(name, len(left_out), len(texts), left_out[0]),
        )
    return documents
