"""Real data next to the checkout, for tests that are skipped without it; and files that are damaged on purpose."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("NESTED_LEARNING_DATA", Path(__file__).parents[2] / "shared" / "data"))


def shared(name: str) -> Path:
    """Return the file or folder `name` of the data; skip the test where there is none."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


def damage(path: Path, harm: str) -> None:
    """Flip one bit in the middle of a file, cut it in half, or delete it: `harm` is flip, truncate or delete."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(content if harm == "flip" else content[: len(content) // 2])
