"""Reports: means and standard errors over seeds, and the tables and plots made of them."""

import json
import math
from pathlib import Path

import pytest

from nested_learning.report import RunResult, mean_and_stderr, plot, read_curve, read_run, render, summarise


def result(seed: str, model: str, loss: float) -> RunResult:
    return RunResult(Path(f"{model}{seed}"), {"seed": seed, "model": model}, {"val/loss": loss})


def test_runs_that_differ_only_in_their_seed_are_averaged() -> None:
    hope, titans = summarise([result("0", "hope", 1.0), result("0", "titans_lmm", 5.0), result("1", "hope", 3.0)])
    assert (hope.swept, hope.num_runs, hope.metrics) == ({"model": "hope"}, 2, {"val/loss": (2.0, 1.0)})
    assert (titans.swept, titans.num_runs, titans.metrics) == ({"model": "titans_lmm"}, 1, {"val/loss": (5.0, None)})


def test_the_standard_error_is_that_of_the_mean() -> None:
    mean, error = mean_and_stderr([1.0, 2.0, 3.0, 6.0])
    assert mean == 3.0
    assert error == pytest.approx(math.sqrt(14 / 3) / 2)


def test_the_table_aligns_and_shows_no_error_for_one_run() -> None:
    table = render(summarise([result("0", "hope", 1.0), result("1", "hope", 3.0), result("0", "transformer", 4.0)]))
    assert table.splitlines() == [
        "model        runs  val/loss",
        "hope         2     2.0000 ± 1.0000",
        "transformer  1     4.0000",
    ]


def test_a_run_is_read_from_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"final": {"val/loss": 2.0, "train/loss": 1.0}, "step": 3}))
    lines = [{"step": 0, "tokens": 0, "val/loss": 3.0}, {"step": 1, "tokens": 8, "train/loss": 2.5}]
    lines.append({"step": 1, "tokens": 8, "val/loss": 2.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(tmp_path, {"seed": "0"})
    assert run == RunResult(tmp_path, {"seed": "0"}, {"val/loss": 2.0})
    assert read_curve(tmp_path, "val/loss") == [(0, 3.0), (8, 2.0)]
    plot(tmp_path / "results.png", [run])
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
