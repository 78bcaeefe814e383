"""A phase is one file `phase/<name>.py` with `run`, one YAML file, and one line of the registry."""

from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest
from tiny import tiny

from nested_learning.command.main import run_phase
from nested_learning.config.option_files import open_option_files
from nested_learning.config.registry import CHOICES
from nested_learning.phase.config import PhaseConfig


@pytest.mark.parametrize("name", CHOICES["phase"])
def test_every_registered_phase_has_a_file_with_run(name: str) -> None:
    run = vars(import_module(f"nested_learning.phase.{name}"))["run"]
    assert list(signature(run).parameters) == ["config"]


def test_every_registered_phase_has_a_yaml_file() -> None:
    assert sorted(CHOICES["phase"]) == open_option_files(None).options("phase")


def test_a_phase_without_a_file_is_named_by_the_error(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    config.phase = PhaseConfig(name="forgotten")
    with pytest.raises(ModuleNotFoundError, match=r"nested_learning\.phase\.forgotten"):
        run_phase(config)
