"""GPT-2's vocabulary, for tests of published tokenizers, which are skipped where the files are missing."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "../shared/data/gpt2"

needs_gpt2 = pytest.mark.skipif(not FOLDER.is_dir(), reason="GPT-2's vocabulary is not there")
