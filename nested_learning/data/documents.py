"""Documents: text read from files, and the split into those trained on and those kept for validation."""

import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from nested_learning.errors import DataError


class Document(NamedTuple):
    """One text and the name it is listed under."""

    name: str
    text: str


def walk_files(folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the files below `folder` in one fixed order, leaving out names in `skip` and whatever begins with a dot."""
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in skip and not name.startswith("."))
        for name in sorted(files):
            if name not in skip and not name.startswith("."):
                yield Path(directory, name)


def read_bytes(path: Path) -> bytes:
    """Return what `path` holds. Raises DataError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"data.path: cannot read {path} ({error.strerror}); make it readable, or name another file"
        ) from error


def to_text(data: bytes) -> str | None:
    """Return `data` as text, or None where it is none: nothing at all, a NUL byte, or not utf-8."""
    if not data or b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def split_documents(documents: Sequence[Document], val_fraction: float) -> tuple[list[Document], list[Document]]:
    """Split into training and validation documents, so that no validation document was trained on. Source: ours.

    A text that occurs twice counts once. In the order of the hash of their text, documents go to validation while they
    still fit into `val_fraction` of all text; if none fits, the smallest does. Which side a document is on so depends on
    what was read, not on where it lies. Of a single document the tail is validation, from the first line end after
    1 - `val_fraction` of it; both lists keep the order of `documents`.
    """
    unique = list({document.text: document for document in reversed(documents)}.values())[::-1]
    if len(unique) == 1:
        return _split_tail(unique[0], val_fraction)
    budget = val_fraction * sum(len(document.text) for document in unique)
    chosen: set[str] = set()
    for document in sorted(unique, key=lambda document: sha256(document.text.encode()).digest()):
        if len(document.text) <= budget:
            chosen.add(document.text)
            budget -= len(document.text)
    if not chosen:
        chosen.add(min((document.text for document in unique), key=len))
    return [d for d in unique if d.text not in chosen], [d for d in unique if d.text in chosen]


def _split_tail(document: Document, val_fraction: float) -> tuple[list[Document], list[Document]]:
    cut = round((1 - val_fraction) * len(document.text))
    # 0 where no line ends after the cut, or only the last one: then cut in the middle of the line
    line_end = document.text.find("\n", cut, len(document.text) - 1) + 1
    cut = line_end or cut
    return [Document(document.name, document.text[:cut])], [Document(document.name, document.text[cut:])]
