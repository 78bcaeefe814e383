"""Documents: finding files, reading text from them, and splitting it into training and validation documents."""

import codecs
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import glob, has_magic
from hashlib import sha256
from pathlib import Path

from nested_learning.errors import DataError

# the mark at the beginning of a file names its encoding and is no part of the text; longer marks come first, because
# that of utf-32 begins as that of utf-16
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# how to get text that can be read from text in another encoding
CONVERT = "convert it: iconv -f <its encoding> -t utf-8"


@contextmanager
def as_data_error(where: str, fix: str = "make it readable") -> Iterator[None]:
    """Turn an OSError raised inside the context into a DataError that begins with `where` and ends with `fix`."""
    try:
        yield
    # RuntimeError: the home of a user who is not known, as in ~nobody/texts
    except (OSError, RuntimeError) as error:
        raise DataError(f"{where}: cannot be read ({error}); {fix}") from error


def find_files(source: str) -> list[Path]:
    """Return the files that `source` names: a file, a folder with all files below it, or a glob; sorted by name.

    Returns an empty list where there is none. Raises OSError for a folder that cannot be listed.
    """
    # an empty path would be the working directory
    if not source:
        return []
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return list(walk_files(path))
    if has_magic(source):
        # Path.glob does not accept absolute patterns
        return [match for match in map(Path, sorted(glob(str(path), recursive=True))) if match.is_file()]  # noqa: PTH207
    return []


def walk_files(folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield all files below `folder` in a fixed order, except names in `skip` and names that begin with a dot.

    Links to folders are not followed. Raises OSError for a folder that cannot be listed.
    """
    for directory, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if name not in skip and not name.startswith("."))
        for path in (Path(directory, name) for name in sorted(files) if name not in skip and not name.startswith(".")):
            # reading from a pipe or a device would block forever
            if path.is_file():
                yield path


def encoding_of(head: bytes) -> str:
    """Return the encoding of a file that begins with `head`: the one that its mark names, or utf-8 without a mark."""
    return next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), "utf-8")


def to_text(data: bytes) -> str | None:
    """Decode the contents of a file. Return None for what is not text: empty, in an unknown encoding, or with a NUL."""
    try:
        text = data.decode(encoding_of(data))
    except UnicodeDecodeError:
        return None
    return text if text and "\0" not in text else None


def split_documents(documents: Sequence[str], val_fraction: float) -> tuple[list[str], list[str]]:
    """Split into training and validation documents that have no document in common. Both lists keep the order.

    Duplicates are removed. Documents are taken for validation in the order of their hash, as long as they fit into
    `val_fraction` of all characters; if none fits, the shortest is taken. So the split depends on the texts and not on
    file names or order. A single document is split in two: its tail, from the first line end after 1 - `val_fraction`
    of its characters, is validation.
    """
    unique = list(dict.fromkeys(documents))
    if len(unique) == 1:
        return _split_tail(unique[0], val_fraction)
    budget = val_fraction * sum(map(len, unique))
    validation: set[str] = set()
    for text in sorted(unique, key=lambda text: sha256(text.encode()).digest()):
        if len(text) <= budget:
            validation.add(text)
            budget -= len(text)
    if not validation:
        validation.add(min(unique, key=len))
    return [text for text in unique if text not in validation], [text for text in unique if text in validation]


def _split_tail(text: str, val_fraction: float) -> tuple[list[str], list[str]]:
    cut = round((1 - val_fraction) * len(text))
    # cut inside a line where no line end follows, or only the last one, which would leave nothing for validation
    cut = text.find("\n", cut, len(text) - 1) + 1 or cut
    return [text[:cut]], [text[cut:]]


def _raise(error: OSError) -> None:
    raise error
