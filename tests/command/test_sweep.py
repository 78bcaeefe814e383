"""Sweeps: every job is checked before the first starts; a job that fails or is killed does not stop the others; the
same command resumes a sweep; a table compares the results at the end.
"""

import csv
import json
import multiprocessing
import os
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from nested_learning.command import main as cli
from nested_learning.command.compose import Job, make_jobs
from nested_learning.command.sweep import assign_directories, run_name, run_sweep, sweep_name
from nested_learning.config.option_files import open_option_files
from nested_learning.config.schema import Config
from nested_learning.errors import ConfigError, DataError, SweepError

TINY = ["experiment=smoke", "model=transformer", "device=cpu", "steps=2", "save_every=2", "val_every=2"]


def jobs(*lines: str) -> list[Job]:
    """Return the jobs of a sweep."""
    return make_jobs(open_option_files(None), lines)


def in_new_process(lines: list[str]) -> ForkServerProcess:
    """Run the command `lines` in a process that starts fast: the server it forks from has imported torch."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["nested_learning.phase.train", "torch._dynamo"])
    process = server.Process(target=_command, args=(lines,))
    process.start()
    return process


def _command(lines: list[str]) -> None:
    os.setpgid(0, 0)
    raise SystemExit(cli.main(lines))


def test_every_combination_is_a_job_the_last_key_changing_fastest() -> None:
    assert [job.swept for job in jobs("seed=0,1", "steps=3", "model=hope,transformer")] == [
        {"seed": "0", "model": "hope"},
        {"seed": "0", "model": "transformer"},
        {"seed": "1", "model": "hope"},
        {"seed": "1", "model": "transformer"},
    ]


def test_a_sweep_file_gives_overrides_and_the_command_line_wins() -> None:
    made = jobs("sweep=models", "seed=range(5,7)", "steps=3")
    assert {job.swept["seed"] for job in made} == {"5", "6"}
    assert {job.config.model.name for job in made} == {"transformer", "titans_lmm", "hope", "hope_attention"}
    assert {job.config.steps for job in made} == {3}


def test_variants_of_a_sweep_file_are_one_more_key_and_may_set_any_others(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        "seed: 0,1\nvariants:\n"
        "  wide: {model: transformer, model.window: null, model.dim: 32}\n"
        "  slow:\n    model: hope_attention\n    model.levels: [{name: it's, period: 0}, {name: slow, period: 64}]\n"
    )
    text = (tmp_path / "sweep" / "mine.yaml").read_text()
    files = open_option_files(str(tmp_path))
    with pytest.raises(ConfigError, match="it's"):
        make_jobs(files, ["sweep=mine"])
    (tmp_path / "sweep" / "mine.yaml").write_text(text.replace("it's", "fast"))
    made = make_jobs(files, ["sweep=mine", "model.num_heads=2"])
    assert [job.swept for job in made] == [
        {"seed": seed, "variant": variant} for seed in "01" for variant in ("wide", "slow")
    ]
    wide, slow = made[0].config.model, made[1].config.model
    assert (wide.name, wide.dim, wide.num_heads) == ("transformer", 32, 2)
    assert [(level.name, level.period) for level in slow.levels] == [("fast", 0), ("slow", 64)]
    # a key that a variant sets cannot be set on the command line as well
    with pytest.raises(ConfigError, match=r"model\.dim: given twice"):
        make_jobs(files, ["sweep=mine", "model.dim=16"])


def test_the_same_command_is_the_same_sweep_however_its_jobs_are_launched() -> None:
    name = sweep_name(["seed=0,1", "steps=2"])
    assert name == sweep_name(["steps=2", "launcher=joblib", "seed=0,1", "launcher.n_jobs=3"])
    assert name != sweep_name(["seed=0,2", "steps=2"])


def test_torchrun_shares_its_processes_with_the_serial_launcher_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun"):
        run_sweep(jobs("seed=0,1", "launcher=joblib"), lambda _config: None, "s")


def test_a_launcher_is_for_sweeps_and_is_not_swept_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*TINY, "launcher=joblib"]) == 2
    assert "add -m" in capsys.readouterr().err
    assert cli.main(["-m", *TINY, "launcher=joblib,serial"]) == 2
    assert "one value" in capsys.readouterr().err


def test_runs_are_named_after_their_overrides_and_never_twice(tmp_path: Path) -> None:
    made = assign_directories(jobs("out=a,a/", "resume=x,'x '"), tmp_path)
    names = [job.config.name for job in made]
    assert names == ["out-a_resume-x", "out-a_resume-x+", "out-a_resume-x++", "out-a_resume-x+++"]
    assert {job.config.out for job in made} == {str(tmp_path)}
    long = [run_name({"model.levels": f"{'x' * 300}{end}"}) for end in "ab"]
    assert long[0] != long[1] and all(len(name) < 200 for name in long)


def test_a_sweep_trains_every_job_and_compares_them(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-m", *TINY, "seed=0,1", "optim=adamw,muon", "name=compared"]) == 0
    folder = empty_folder / "runs" / "compared"
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(row["seed"], row["optim"]) for row in rows] == [
        ("0", "adamw"),
        ("0", "muon"),
        ("1", "adamw"),
        ("1", "muon"),
    ]
    assert all((folder / row["run"] / "summary.json").exists() and float(row["val/loss"]) > 0 for row in rows)
    assert len({row["val/loss"] for row in rows}) == 4
    # the seed decides the order of the data, the optimizer does not
    assert rows[0]["data_order"] == rows[1]["data_order"] != rows[2]["data_order"] == rows[3]["data_order"]
    assert (folder / "results.png").stat().st_size > 1000
    table = capsys.readouterr().out.split("\n\n")[-3]
    assert [line.split()[:2] for line in table.splitlines()] == [["optim", "runs"], ["adamw", "2"], ["muon", "2"]]
    assert table.count("±") == 2 * (len(rows[0]) - 4)
    assert sorted(path.name for path in empty_folder.iterdir()) == ["runs"]


def test_jobs_that_fail_are_reported_and_the_others_continue(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run(config: Config) -> None:
        ran.append(config.seed)
        if config.seed == 1:
            raise DataError("gone")
        if config.seed == 2:
            raise RuntimeError("out of memory")
        cli.run_phase(config)

    with pytest.raises(SweepError, match=r"^2 of 4 jobs failed.*seed-1: gone; seed-2: RuntimeError: out of memory"):
        run_sweep(jobs(*TINY, "seed=0,1,2,3", "name=half"), run, "s")
    assert ran == [0, 1, 2, 3]
    assert "job 2 of 4: seed=1: failed: gone" in capsys.readouterr().out
    rows = csv.DictReader(Path("runs/half/results.csv").read_text().splitlines())
    assert [row["seed"] for row in rows] == ["0", "3"]
    # the same command runs only the failed jobs again
    run_sweep(jobs(*TINY, "seed=0,1,2,3", "name=half"), lambda config: ran.append(config.seed), "s")
    assert ran == [0, 1, 2, 3, 1, 2]


def test_data_that_is_missing_in_one_job_stops_all_before_the_first_and_creates_no_file(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(["-m", "data=text", f"data.path={__file__},nope"])
    out, err = capsys.readouterr()
    assert status == 2 and err.startswith("error: data.path=nope: no such file") and err.count("\n") == 1
    assert out == ""
    assert list(empty_folder.iterdir()) == []


def test_a_sweep_does_not_start_when_a_run_has_another_configuration(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["-m", *TINY, "seed=0,2", "name=s"]) == 0
    ran: list[int] = []
    with pytest.raises(ConfigError, match=r"seed-0 was made with another configuration: optim\.clip was"):
        run_sweep(jobs(*TINY, "seed=1,0", "optim.clip=0.5", "name=s"), lambda config: ran.append(config.seed), "s")
    assert ran == []


def test_a_killed_sweep_resumes_with_its_command_to_the_same_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(out: str) -> list[str]:
        longer = [line for line in TINY if not line.startswith(("steps", "save_every"))]
        return ["-m", *longer, "steps=4", "save_every=1", "seed=range(0,6)", f"out={tmp_path / out}"]

    folder = tmp_path / "killed" / sweep_name(command("killed")[1:])
    process = in_new_process(command("killed"))
    # in the middle of job 3
    while not (folder / "seed-2/checkpoints/latest").exists():
        assert process.is_alive()
        time.sleep(0.005)
    process.kill()
    process.join()
    runs = [folder / f"seed-{seed}" for seed in range(6)]
    done = [(run / "summary.json").exists() for run in runs]
    saved = [(run / "checkpoints/latest").exists() for run in runs]
    assert process.exitcode == -signal.SIGKILL and done[:2] == [True, True] and not done[5]
    began = [
        json.loads((run / "environment.json").read_text()) for run, is_done in zip(runs, done, strict=True) if is_done
    ]
    assert cli.main(command("killed")) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("job ")]
    # skipped, resumed, started
    assert [line.endswith("finished already") for line in titles] == done
    now = [json.loads((run / "environment.json").read_text()) for run in runs]
    assert now[: len(began)] == began
    assert [each["from_step"] > 0 for each in now] == [
        has and not is_done for has, is_done in zip(saved, done, strict=True)
    ]
    assert cli.main(command("whole")) == 0
    whole = next((tmp_path / "whole").iterdir())
    for file in ("results.csv", "comparisons.csv"):
        assert (folder / file).read_bytes() == (whole / file).read_bytes()


def test_a_dry_sweep_creates_no_file(empty_folder: Path) -> None:
    assert cli.main(["-m", *TINY, "dry_run=true", "seed=0,1"]) == 0
    assert list(empty_folder.iterdir()) == []
