from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny

from nested_learning.command.preflight import check_inputs
from nested_learning.data.text.text import TextConfig
from nested_learning.errors import DataError
from nested_learning.phase.config import PhaseConfig


def test_training_needs_its_data_and_a_plan_or_another_phase_does_not(tmp_path: Path) -> None:
    config = replace(tiny(tmp_path), data=TextConfig(path=str(tmp_path / "none.txt")))
    dry = replace(config, dry_run=True)
    for needing in (config, dry):
        with pytest.raises(DataError, match="no such file"):
            check_inputs(needing)
    check_inputs(replace(dry, plan=replace(dry.plan, vocab_size=257)))
    check_inputs(replace(config, phase=PhaseConfig(name="sample"), checkpoint="runs/first"))
