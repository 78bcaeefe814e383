"""The experiment on capabilities: every run composes, verdicts follow from the results, nothing is done twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.report.runs import last_of_each_key
from scripts.experiments.capabilities import claims, results
from scripts.experiments.capabilities.trials import PARTS, QUICK

ROOT = Path(__file__).parents[2]


def run_script(out: Path, *arguments: str) -> str:
    """Run the script with tiny sizes into `out`; return its report."""
    command = [sys.executable, "-m", "scripts.experiments.capabilities.run", "--quick", "--out", str(out)]
    command += ["--report", str(out / "report.md"), *arguments]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (out / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "part", ["mad", "ablation", *(pytest.param(part, marks=pytest.mark.slow) for part in ("formal", "recall"))]
)
def test_every_model_and_every_case_composes(part: str) -> None:
    trials = PARTS[part].trials
    first = {**{trial.case: trial for trial in trials[::-1]}, **{trial.model: trial for trial in trials[::-1]}}
    for trial in first.values():
        make_job(open_option_files(None), last_of_each_key((*trial.overrides, *QUICK)))
        for evaluation in trial.evaluations:
            make_job(open_option_files(None), last_of_each_key((*trial.overrides, *evaluation.overrides)))


def test_every_run_has_a_unique_name() -> None:
    names = [trial.name(seed) for part in PARTS.values() for trial in part.trials for seed in (0, 1)]
    assert len(set(names)) == len(names) > 150


def test_the_rows_of_the_ablation_differ_in_the_settings_that_they_name() -> None:
    trials = {trial.model: trial for trial in PARTS["ablation"].trials}
    files = open_option_files(None)
    configs = {name: make_job(files, list(trial.overrides)).config for name, trial in trials.items()}
    models = {name: config.model for name, config in configs.items()}
    assert models["hope"].memory.momentum == "gate" and models["hope"].memory.rule == "dgd"
    assert models["without_momentum"].memory.momentum == "none"
    assert models["without_dgd"].memory.rule == "gd"
    assert models["without_weight_decay"].memory.retention == "none"
    assert len(models["hope"].levels) == 2 and len(models["without_cms"].levels) == 1
    assert "key" not in models["static_key"].adaptive and "value" not in models["static_value"].adaptive
    assert "query" in models["adaptive_query"].adaptive and "query" not in models["hope"].adaptive
    assert len({(config.steps, config.data.batch_size, config.data.seq_len) for config in configs.values()}) == 1


@pytest.mark.parametrize(
    ("shares", "paper", "word"),
    [
        ([1.0, 0.995], 100.0, "reproduced"),
        ([0.9, 0.98], 100.0, "not reproduced"),
        ([1.0, 0.98], 100.0, "not decidable at this size"),
        ([0.0, 0.4], 10.1, "reproduced"),
        ([1.0, 1.0], 0.0, "not reproduced"),
        ([1.0, 0.0], 0.0, "not decidable at this size"),
    ],
)
def test_a_fraction_is_judged_over_all_seeds(shares: list[float], paper: float, word: str) -> None:
    assert claims.judge_share(shares, paper) == word


@pytest.mark.parametrize(
    ("mean", "error", "word"),
    [
        (0.03, 0.01, "reproduced"),
        (-0.03, 0.01, "not reproduced"),
        (0.03, 0.02, "not decidable at this size"),
        (0.009, 0.001, "not decidable at this size"),
        (0.03, None, "not decidable at this size"),
    ],
)
def test_a_difference_is_judged_by_its_error(mean: float, error: float | None, word: str) -> None:
    assert claims.judge_difference(mean, error, 0.01) == word


def test_differences_are_paired() -> None:
    assert results.difference({0: 1.0, 1: 3.0, 2: 9.0}, {1: 2.5, 0: 0.5}) == (0.5, 0.0)
    assert results.difference({0: 1.0}, {0: 0.5, 1: 3.0}) == (0.5, None)


def test_a_task_that_is_still_being_learned_is_not_reported_as_failed() -> None:
    assert claims.unless_rising("not reproduced", 0.05) == "not decidable at this size"
    assert claims.unless_rising("not reproduced", 0.0) == "not reproduced"
    assert claims.unless_rising("reproduced", 0.05) == "reproduced"


def test_a_later_override_replaces_an_earlier_one() -> None:
    lines = ("experiment=formal", "model.dim=64", "steps=3", "model.dim=16")
    assert last_of_each_key(lines) == [
        "experiment=formal",
        "model.dim=16",
        "steps=3",
    ]


@pytest.mark.slow
def test_the_script_goes_from_nothing_to_a_report_and_does_nothing_twice(tmp_path: Path) -> None:
    report = run_script(tmp_path, "--seeds", "0", "1")
    assert all(f"## {title}" in report for title in ("Formal languages", "MAD", "Recall", "Ablation"))
    assert all(0 < path.stat().st_size < 200_000 for path in (tmp_path / "figures").iterdir())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.json*")}
    assert run_script(tmp_path, "--seeds", "0", "1") == report
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.json*")}
    assert run_script(tmp_path, "--report-only") == report


@pytest.mark.slow
def test_a_run_with_other_settings_is_not_reused(tmp_path: Path) -> None:
    run_script(tmp_path, "--part", "ablation")
    with pytest.raises(AssertionError, match=r"was made with other settings; move it away, or give another --out"):
        run_script(tmp_path, "--part", "ablation", "--set", "steps=3")
