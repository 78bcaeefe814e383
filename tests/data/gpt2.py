"""GPT-2's vocabulary, for tests of tokenizers that exist: where it is not beside the checkout they are skipped."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "../shared/data/gpt2"

needs_gpt2 = pytest.mark.skipif(not FOLDER.is_dir(), reason="GPT-2's vocabulary is not there")
