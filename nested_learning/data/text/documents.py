"""Documents: text read from files, and the split into those trained on and those kept for validation."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from nested_learning.errors import DataError


@contextmanager
def as_data_error(where: str) -> Iterator[None]:
    """Turn the system's refusal to read something into a DataError that begins with `where`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{where}: cannot be read ({error}); make it readable, or use data=text data.path=<another file>"
        ) from error


def walk_files(folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the files below `folder` in one fixed order, leaving out names in `skip` and whatever begins with a dot.

    Links to folders are not followed. Raises OSError for a folder that cannot be listed.
    """
    for directory, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if name not in skip and not name.startswith("."))
        for path in (Path(directory, name) for name in sorted(files) if name not in skip and not name.startswith(".")):
            # pipes and devices would be waited for without end
            if path.is_file():
                yield path


def to_text(data: bytes) -> str | None:
    """Return `data` as text, or None where it is none: nothing at all, a NUL byte, or not utf-8."""
    if not data or b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def split_documents(documents: Sequence[str], val_fraction: float) -> tuple[list[str], list[str]]:
    """Split into training and validation documents, so that no validation document was trained on.

    A text that occurs twice counts once. In the order of their hash, documents go to validation while they still fit
    into `val_fraction` of all text; if none fits, the smallest does. So it is what was read that decides, not where it
    lies. Of a single document the tail is validation, from the first line end after 1 - `val_fraction` of it.
    Both lists keep the order of `documents`.
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
    # a line end at the very end would leave nothing for validation: then, or without any, the line itself is cut
    cut = text.find("\n", cut, len(text) - 1) + 1 or cut
    return [text[:cut]], [text[cut:]]


def _raise(error: OSError) -> None:
    raise error
