"""Documents: reading text from files, and splitting it into training and validation documents."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from nested_learning.errors import DataError


@contextmanager
def as_data_error(where: str) -> Iterator[None]:
    """Turn an OSError raised inside the context into a DataError that begins with `where`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{where}: cannot be read ({error}); make it readable, or use data=text data.path=<another file>"
        ) from error


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


def to_text(data: bytes) -> str | None:
    """Decode `data`. Return None for what is not text: empty, not utf-8, or with a NUL byte."""
    if not data or b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


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
