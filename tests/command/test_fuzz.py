"""Mistakes drawn from a seed: each command ends in one line and status 2, and leaves no file."""

import random
import resource
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest
from mistakes import CHOICES, FILES, LISTED, Key, configurations, full_name, impossible, keys, replaced

from nested_learning.command import main as cli
from nested_learning.config.schema import Config, convert_config
from nested_learning.errors import ConfigError

SECONDS = 10


def cpu_seconds() -> float:
    """Return the CPU time of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def draw_line(pick: random.Random) -> list[str]:
    """Return a command line with one mistake: a group's typo, another group's option, a key's typo, a wrong value."""
    group, other = pick.sample([*CHOICES], 2)
    option = pick.choice(FILES.options(group))
    key = pick.choice([each for _, config in configurations()[:1] for each in keys(config)])
    letter = pick.choice("aeiox")
    name = option[:-1] + "zq" + letter
    foreign = pick.choice([each for each in FILES.options(other) if each not in FILES.options(group)])
    return pick.choice(
        [
            [f"{group}={name}"],
            [f"{group}=[{foreign}]" if group in LISTED else f"{group}={foreign}"],
            [f"{group}{letter}q={option}"],
            [f"{full_name(key)}.{letter}q=1"],
            [f"{pick.choice(['steps', 'seed', 'data.batch_size'])}={pick.choice(['-1', 'nan', '1.5', 'x', '1e400'])}"],
            [f"{pick.choice(['out', 'resume'])}={'x' * pick.randint(256, 400)}"],
            [f"{pick.choice(['sampling.temperature', 'plan.mfu', 'optim.clip'])}={pick.choice(['nan', 'inf', '-1'])}"],
        ]
    )


@cache
def drawable() -> list[tuple[Config, Key]]:
    """Return every key that has impossible values, with its configuration."""
    return [
        (config, key)
        for group, config in configurations()
        for key in keys(config)
        if group in ("", key.path[0]) and list(impossible(key))
    ]


def draw_value(pick: random.Random) -> tuple[str, object]:
    """Return the name of a key and the plain configuration in which it has a value that it cannot have."""
    config, key = pick.choice(drawable())
    return full_name(key), replaced(asdict(config), key.path, pick.choice(list(impossible(key))))


@pytest.mark.parametrize("count", [20, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_drawn_command_line_with_a_mistake_ends_in_one_line(
    count: int, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pick = random.Random(12)
    for _ in range(count):
        line, before = draw_line(pick), cpu_seconds()
        status = cli.main(line)
        out, err = capsys.readouterr()
        assert (status, out, err.count("\n")) == (2, "", 1), (line, err)
        assert err.startswith("error: ") and "please report" not in err, (line, err)
        assert list(empty_folder.iterdir()) == [] and cpu_seconds() - before < SECONDS, line


@pytest.mark.parametrize("count", [180, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_drawn_configuration_with_a_mistake_is_refused_by_the_name_of_its_key(count: int) -> None:
    pick = random.Random(12)
    for _ in range(count):
        name, values = draw_value(pick)
        with pytest.raises(ConfigError) as raised:
            convert_config(values)
        assert name in str(raised.value) and "\n" not in str(raised.value)
