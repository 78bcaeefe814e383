"""The experiment on answers outside the window: its runs compose, its verdicts follow from the results, it resumes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.report.runs import FinishedRun, last_of_each_key
from scripts.experiments.beyond_window import report, trials

ROOT = Path(__file__).parents[2]


def test_runs_have_unique_names_and_compose_with_their_evaluations() -> None:
    files = open_option_files(None)
    parts = trials.PARTS
    every = [trial for part in parts.values() for trial in part]
    assert len({trial.name(seed) for trial in every for seed in (0, 1)}) == 2 * len(every) > 30
    # the most overrides of each part, the others differ in their model
    for part in parts.values():
        trial = max(part, key=lambda trial: len((*trial.overrides, *trial.warmup)))
        config = make_job(files, last_of_each_key((*trial.overrides, *trial.warmup))).config
        assert not trial.warmup or config.data.max_length == 8
        for evaluation in trial.evaluations:
            asked = [line for line in evaluation.overrides if line.startswith("evals.")]
            lines = (*trial.overrides, f"evals=[{evaluation.pack}]", *asked)
            assert list(make_job(files, last_of_each_key(lines)).config.evals) == [evaluation.pack]


def run_of(seed: int, accuracy: float, model: str, cpu_seconds: float = 30.0) -> Any:
    """Make a finished run that got `accuracy` of everything it was asked, and nothing with its memory frozen."""
    gaps = {f"accuracy/{gap}/{pairs}": accuracy for gap in (32, 128, 512) for pairs in (4, 8, 16)}
    nothing = dict.fromkeys(["accuracy/32/4", "accuracy_wrong_context/32/4"], 0.04)
    answers = {
        "recall": gaps,
        "recall_frozen": nothing,
        "recall_memorize_studied": nothing | {"accuracy/32/4": accuracy},
        "recall_changed": dict.fromkeys(["accuracy/32/4+2", "changed/32/4+2", "stale/32/4+2"], accuracy),
    }
    packed = {
        name: {"metrics": {figure: {"value": value, "stderr": 0.0, "n": 64} for figure, value in figures.items()}}
        for name, figures in answers.items()
    }
    config = {"seed": seed, "data": {"num_values": 24, "batch_size": 32}}
    summary = {"cpu_seconds": cpu_seconds, "step": 500}
    return FinishedRun(Path(model), config, {}, summary, packed)


def test_verdicts_follow_from_the_answers() -> None:
    good, late = ([run_of(seed, share, "titans_lmm") for seed, share in enumerate(each)]
                  for each in ([0.99, 0.98, 0.5], [0.99, 0.5, 0.5]))  # fmt: skip
    assert "2 of 3 seeds" in report.gap_verdicts({"titans_lmm": good}, 1 / 24)[0]
    assert report.gap_verdicts({"titans_lmm": good}, 1 / 24)[0].count("**yes**") == 1
    assert report.gap_verdicts({"titans_lmm": late}, 1 / 24)[0].count("**yes**") == 0
    assert "no verdict" in report.gap_verdicts({"titans_lmm": good[:1]}, 1 / 24)[0]
    slow = [run_of(seed, 0.99, "titans_lmm", cpu_seconds=200.0) for seed in (0, 1)]
    assert report.gap_verdicts({"titans_lmm": slow}, 1 / 24)[0].count("**yes**") == 1
    assert "95.0 ± 0.0 points" in report.write_gain(slow)
    for accuracy, word in ((0.045, "yes"), (0.12, "no")):
        runs = [run_of(seed, accuracy, "transformer_window") for seed in (0, 1, 2)]
        assert report.gap_verdicts({"transformer_window": runs}, 1 / 24)[0].endswith(f"at chance: **{word}**")


@pytest.mark.slow
def test_the_script_trains_evaluates_reports_and_resumes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "scripts.experiments.beyond_window.run",
        "--quick",
        "--seeds",
        "0",
        "--out",
        str(tmp_path),
    ]
    command += ["--report", str(tmp_path / "report.md")]
    for part in (["gap", "--only", "titans_lmm", "transformer"], ["capacity", "formal"]):
        done = subprocess.run([*command, "--part", *part], env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert done.returncode == 0
    text = (tmp_path / "report.md").read_text()
    assert "## Answers outside the window" in text and "## Number of pairs" in text and "## State tracking" in text
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/evals/*.json")}
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == 0
    assert all(path.stat().st_mtime_ns == changed for path, changed in made.items())
    assert json.loads((tmp_path / "machine.json").read_text())["jobs"] == 1
