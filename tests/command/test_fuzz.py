"""Mistakes drawn from a seed: each command ends in one line and status 2, and leaves no file."""

import random
from pathlib import Path

import pytest

from scripts.benchmarks.mistakes import draw_line, draw_value, try_line, try_value


@pytest.mark.parametrize("count", [20, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_drawn_command_line_with_a_mistake_ends_in_one_line(count: int, empty_folder: Path) -> None:
    pick = random.Random(12)
    for _ in range(count):
        _, override = draw_line(pick)
        assert try_line(override) is None, override


@pytest.mark.parametrize("count", [180, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_drawn_configuration_with_a_mistake_is_refused_by_the_name_of_its_key(count: int) -> None:
    pick = random.Random(12)
    for _ in range(count):
        name, value, values = draw_value(pick)
        assert try_value(name, values) is None, (name, value)
