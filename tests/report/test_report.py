"""Reports: means and standard errors over seeds, and the tables and plots made of them."""

import json
import math
from pathlib import Path

import pytest

from nested_learning.report import RunResult, conclude, mean_and_stderr, plot, read_curve, read_run, render, summarise
from nested_learning.report.plots import merge_equal
from nested_learning.report.text import format_mean


def result(seed: str, model: str, loss: float) -> RunResult:
    return RunResult(Path(f"{model}{seed}"), {"seed": seed, "model": model}, {"val/loss": loss})


def test_runs_that_differ_only_in_their_seed_are_averaged() -> None:
    hope, titans = summarise([result("0", "hope", 1.0), result("0", "titans_lmm", 5.0), result("1", "hope", 3.0)])
    assert (hope.swept, hope.num_runs, hope.metrics) == ({"model": "hope"}, 2, {"val/loss": (2.0, 1.0, 2)})
    assert (titans.swept, titans.num_runs, titans.metrics) == ({"model": "titans_lmm"}, 1, {"val/loss": (5.0, None, 1)})


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


def test_a_mean_over_fewer_runs_than_the_setting_has_says_so() -> None:
    whole, lacking = result("0", "hope", 1.0), result("1", "hope", 3.0)
    whole.metrics["val/bpb"] = 0.5
    for order in ([whole, lacking], [lacking, whole]):
        (line,) = render(summarise(order)).splitlines()[1:]
        assert "2.0000 ± 1.0000" in line and "0.5000 (1 of 2 runs)" in line
    assert format_mean([0.5, None, 0.7], 1) == "0.6 ± 0.1 (2 of 3 runs)" and format_mean([None], 1) == "-"


def test_settings_are_compared_by_a_metric_that_all_runs_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [write_run(tmp_path, f"text{seed}", {"val/bpb": 1.0, "val/loss": 2.0 + seed}) for seed in (0, 1)]
    results += [write_run(tmp_path, f"task{seed}", {"val/loss": 5.0 + seed}) for seed in (0, 1)]
    conclude(tmp_path, results)
    assert "val/loss, difference with its 95 % interval:\n" in capsys.readouterr().out
    assert (tmp_path / "comparisons.csv").read_text().splitlines()[1].startswith("model=text,model=task,val/loss,-3.0,")


def test_a_run_whose_loss_is_not_finite_is_neither_averaged_away_nor_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for bad in (math.nan, math.inf):
        results = [write_run(tmp_path, f"a{seed}", {"val/loss": value}) for seed, value in enumerate((bad, 1.0, 1.1))]
        results += [write_run(tmp_path, f"b{seed}", {"val/loss": 2.0 + seed / 9}) for seed in range(3)]
        conclude(tmp_path, results)
        shown = capsys.readouterr().out
        assert str(bad) in next(line for line in shown.splitlines() if line.startswith("a "))
        assert "3 runs, not finite" in shown and "apart: " not in shown


def write_run(folder: Path, name: str, metrics: dict[str, float]) -> RunResult:
    """Write metrics.jsonl of a run with the final `metrics`, and return the run; the last letter is its seed."""
    (folder / name).mkdir(exist_ok=True)
    line = {"step": 1, "tokens": 8} | {key: each if math.isfinite(each) else None for key, each in metrics.items()}
    (folder / name / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return RunResult(folder / name, {"seed": name[-1], "model": name[:-1]}, metrics)


def test_lines_that_would_hide_each_other_are_one_line_with_all_names(tmp_path: Path) -> None:
    rate, other = ((1.0, 0.5, None), (2.0, 0.25, None)), ((1.0, 0.5, None),)
    lines = {"lr": rate, "lr/matrices": rate, "none": (), "lr/vectors": other, "lr/slow": rate}
    assert merge_equal(lines) == {"lr\n= lr/matrices\n= lr/slow": rate, "lr/vectors": other}


def test_a_table_that_is_wider_than_the_terminal_is_continued_below() -> None:
    metrics = {f"val/{name}": 1.0 for name in ("loss", "accuracy", "bpb", "memory/fast/writes", "memory/slow/writes")}
    runs = [
        RunResult(Path(f"{seed}{model}"), {"model": model, "seed": seed}, metrics) for seed in "01" for model in "ab"
    ]
    whole, narrow = render(summarise(runs)), render(summarise(runs), 60)
    assert len(whole.splitlines()) == 3 and len(whole.splitlines()[0]) > 80
    assert all(len(line) <= 60 for line in narrow.splitlines()) and all(name in narrow for name in metrics)
    assert [part.splitlines()[1].split()[:2] for part in narrow.split("\n\n")] == [["a", "2"]] * 3


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
