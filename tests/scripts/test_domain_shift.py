"""Memorizing and a change of domain: excerpts do not overlap, and verdicts follow the numbers."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scripts.experiments.domain_shift import report
from scripts.experiments.domain_shift import run as shift

ROOT = Path(__file__).parents[2]
CODE = "".join(f"def f{line}(x):\n    return x + {line}\n" for line in range(4000))
BOOK = "".join(f"It was said {line} times that the whale was white. " for line in range(1200))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write what the script reads, small."""
    (tmp_path / "text" / "gutenberg").mkdir(parents=True)
    (tmp_path / "text" / shift.CODE).write_text(CODE)
    for number, name in enumerate((*shift.TRAINED_ON, shift.VALIDATION, *shift.NEW)):
        # the book of validation must fit into a tenth of all
        text = BOOK if name != shift.VALIDATION else BOOK[: len(BOOK) // 3]
        shift.book(tmp_path, name).write_text(text.replace("whale", f"whale {number}"))
    return tmp_path


def test_the_text_that_the_rate_is_chosen_on_is_not_evaluated(data: Path) -> None:
    length = 512
    asked, tried = shift.domains(data, length), shift.tried(data, length)
    assert {domain: len(each) for domain, each in asked.items()} == {"books": shift.ROWS, "code": shift.ROWS}
    every = [*asked["books"], *asked["code"], *tried]
    assert {len(each) for each in every} == {length} and len(set(every)) == len(every)
    places = sorted(CODE.encode().index(each) for each in (*asked["code"], *tried[shift.TRIED :]))
    assert all(after - before >= length for before, after in pairwise(places))


def shifted(better: float) -> list[Any]:
    """Make up two seeds of three excerpts, in which study is `better` than anything else."""
    cost = {name: [2.0, 3.0, 4.0] for name in report.CONDITIONS}
    for name in ("read and studied", "memory of study"):
        cost[name] = [2.0 - better, 3.0 - 1.1 * better, 4.0 - 1.2 * better]
    found = {"rates": {"code": 0.1}, "half": 8, "code": cost}
    other = {**found, "code": {name: [each - 0.5 for each in values] for name, values in cost.items()}}
    return [report.Shift(None, found), report.Shift(None, other)]


def test_a_change_has_errors_over_seeds_and_over_excerpts() -> None:
    change = report.compare(shifted(1.0), "code", "read and studied", "read")
    assert change.mean == pytest.approx(-1.1)
    assert change.over_seeds == pytest.approx(0, abs=1e-12)
    assert change.error == change.over_excerpts == pytest.approx(0.1 / 3**0.5)


@pytest.mark.parametrize(("better", "yes"), [(1.0, 4), (0.0, 1), (-1.0, 1)])
def test_a_verdict_follows_the_numbers(better: float, yes: int) -> None:
    lines = report.second_halves({"hope": shifted(better)}, "code")
    verdicts = [line for line in lines if line.startswith("- hope")]
    # that the wrong domain is no help holds whatever study is worth
    assert (len(verdicts), sum("**yes**" in line for line in verdicts)) == (5, yes)


@pytest.mark.slow
def test_the_script_resumes_where_it_was_interrupted(data: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "scripts.experiments.domain_shift.run",
        "--data",
        str(data),
        "--out",
        str(data / "out"),
    ]
    command += ["--report", str(data / "report.md"), "--seeds", "0", "1", "--steps", "2", "--half", "64"]
    command += ["--models", "transformer", "hope"]
    written = []
    for arguments in ([], [], ["--report-only"]):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, *arguments], env=environment, cwd=data, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        _, _, text = (data / "report.md").read_text(encoding="utf-8").partition("domain_shift.py")
        written.append(text.partition("\n")[2])
    assert written[0] == written[1] == written[2]
    assert written[0].count("## ") == 5
    assert (data / "figures" / "domain_shift.png").exists()
