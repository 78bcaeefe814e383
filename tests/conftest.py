"""Settings and fixtures of all tests."""

import os
from pathlib import Path

import pytest
import torch

# without a GPU Triton interprets kernels; it reads this when torch first imports it
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that a test sees every file that a command leaves behind."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
