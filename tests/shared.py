"""Real data next to the checkout; tests that need it are skipped without it."""

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
