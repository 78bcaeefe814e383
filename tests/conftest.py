"""What every test may use."""

from pathlib import Path

import pytest


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: what a command leaves behind is all there is to see."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
