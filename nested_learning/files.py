"""Atomic file writes: after a crash at any moment a reader finds the old contents or the new."""

import os
from hashlib import sha256
from pathlib import Path


def write_atomic(path: Path, text: str) -> None:
    """Write `text` (utf-8) to `path`: a temporary file next to it, synced, then renamed over it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Return once what was written to the file or directory `path` has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_holder(lock: Path) -> str:
    """Return the process number that the holder of the file `lock` wrote into it, "unknown" before it has."""
    return lock.read_text(encoding="utf-8").strip() or "unknown"


def hash_file(path: Path) -> str:
    """Return the sha256 of the contents of `path`, read in blocks of 1 MiB."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
