"""Sweeps: every job is checked before the first begins; what came out stands side by side at the end."""

import csv
from pathlib import Path

import pytest

from nested_learning import cli
from nested_learning.compose import Job, make_jobs
from nested_learning.config import Config
from nested_learning.errors import ConfigError, DataError
from nested_learning.option_files import open_option_files
from nested_learning.sweep import place, run_sweep

TINY = ["experiment=smoke", "model=transformer", "device=cpu", "steps=2", "save_every=2", "val_every=2"]


def jobs(*lines: str) -> list[Job]:
    """Make the jobs of a sweep."""
    return make_jobs(open_option_files(None), lines)


def test_every_combination_is_a_job_the_last_key_changing_fastest() -> None:
    assert [job.swept for job in jobs("seed=0,1", "steps=3", "model=hope,transformer")] == [
        {"seed": "0", "model": "hope"},
        {"seed": "0", "model": "transformer"},
        {"seed": "1", "model": "hope"},
        {"seed": "1", "model": "transformer"},
    ]


def test_a_sweep_file_stands_for_its_lines_and_the_command_line_wins() -> None:
    made = jobs("sweep=models", "seed=range(5,7)", "steps=3")
    assert {job.swept["seed"] for job in made} == {"5", "6"}
    assert {job.config.model.name for job in made} == {"transformer", "titans_lmm", "hope", "hope_attention"}
    assert {job.config.steps for job in made} == {3}


def test_a_sweep_of_several_processes_needs_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="name="):
        run_sweep(jobs("seed=0,1", f"out={tmp_path}/runs"), lambda _config: None)
    assert list(tmp_path.iterdir()) == []


def test_runs_are_named_after_their_overrides_and_never_twice(tmp_path: Path) -> None:
    made = place(jobs("out=a,a/", "resume=x,'x '"), tmp_path)
    names = [job.config.name for job in made]
    assert names == ["out-a_resume-x", "out-a_resume-x+", "out-a_resume-x++", "out-a_resume-x+++"]
    assert {job.config.out for job in made} == {str(tmp_path)}


def test_a_sweep_trains_every_job_and_compares_them(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-m", *TINY, "seed=0,1", "optim=adamw,muon", "name=compared"]) == 0
    folder = empty_folder / "runs" / "compared"
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [(row["seed"], row["optim"]) for row in rows] == [
        ("0", "adamw"),
        ("0", "muon"),
        ("1", "adamw"),
        ("1", "muon"),
    ]
    assert all((folder / row["run"] / "summary.json").exists() and float(row["val/loss"]) > 0 for row in rows)
    assert len({row["val/loss"] for row in rows}) == 4
    assert (folder / "results.png").stat().st_size > 1000
    table = capsys.readouterr().out.split("\n\n")[-2]
    assert [line.split()[:2] for line in table.splitlines()] == [["optim", "runs"], ["adamw", "2"], ["muon", "2"]]
    assert table.count("±") == 2 * (len(rows[0]) - 3)
    assert sorted(path.name for path in empty_folder.iterdir()) == ["runs"]


def test_a_job_that_fails_ends_the_sweep_with_its_line(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["-m", "data=text", "data.path=nope,nothing"])
    out, err = capsys.readouterr()
    assert status == 2 and err.startswith("error: data.path=nope") and err.count("\n") == 1
    assert "job 1 of 2" in out and "job 2" not in out
    assert list(empty_folder.iterdir()) == []


def test_what_came_before_the_failure_is_kept(empty_folder: Path) -> None:
    def run(config: Config) -> None:
        if config.seed == 1:
            raise DataError("gone")
        cli.run_phase(config)

    with pytest.raises(DataError):
        run_sweep(jobs(*TINY, "seed=0,1,2", "name=half"), run)
    assert (empty_folder / "runs/half/results.csv").read_text().count("\n") == 2


def test_a_dry_sweep_leaves_nothing(empty_folder: Path) -> None:
    assert cli.main(["-m", *TINY, "dry_run=true", "seed=0,1"]) == 0
    assert list(empty_folder.iterdir()) == []
