"""Launchers: every job reports how it ended, a killed job stops no other, and no job is started twice."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nested_learning.command import main as cli
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import ConfigError
from nested_learning.launcher import joblib, submitit
from nested_learning.launcher.protocol import Task

ROOT = Path(__file__).parents[2]


def launcher(*lines: str) -> Any:
    """Return the launcher that overrides configure."""
    return make_job(open_option_files(None), lines).config.launcher


def tasks(**shell: str) -> list[Task]:
    """Return jobs that run lines of shell instead of training."""
    return [Task(name, f"job {name}", line, lambda: None) for name, line in shell.items()]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have launchers run the file of a job as a shell script."""
    for module in (joblib, submitit):
        monkeypatch.setattr(module, "job_command", lambda path: ["sh", str(path)])


def ends(launch: Any, work: list[Task], folder: Path) -> dict[str, str]:
    """Launch `work`; return how each ended."""
    return {outcome.task.name: outcome.error for outcome in launch.launch(work, folder)}


def test_a_killed_job_stops_no_other(shell: None, tmp_path: Path) -> None:
    work = tasks(good="exit 0", bad="echo 'error: no such data' >&2; exit 2", killed="kill -9 $$", odd="echo x; exit 3")
    found = ends(launcher("launcher=joblib"), work, tmp_path)
    logs = tmp_path / "logs"
    assert found == {
        "good": "",
        "bad": "no such data",
        "killed": f"ended by SIGKILL; its output: {logs / 'killed.log'}",
        "odd": f"ended with status 3; its output: {logs / 'odd.log'}",
    }
    assert (logs / "odd.log").read_text() == "x\n"


def test_a_sweep_that_is_interrupted_stops_its_jobs_waits_until_they_have_saved_and_starts_no_other(
    shell: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "trap 'sleep 0.2; touch {0}.saved; exit 130' TERM; touch {0}; while :; do sleep 0.01; done"
    two, three, four = (tmp_path / name for name in ("two", "three", "four"))
    work = tasks(one="exit 0", two=line.format(two), three=line.format(three), four=f"touch {four}")
    outcomes = launcher("launcher=joblib", "launcher.n_jobs=2").launch(work, tmp_path)
    assert next(outcomes).task.name == "one"
    deadline = time.monotonic() + 60
    while not (two.exists() and three.exists()) and time.monotonic() < deadline:
        time.sleep(0.01)
    outcomes.close()
    assert all(each.with_suffix(".saved").exists() for each in (two, three)) and not four.exists()
    assert "stopping the jobs that run: 2; each saves first" in capsys.readouterr().out


def test_a_job_that_was_interrupted_alone_says_where_it_is_saved(shell: None, tmp_path: Path) -> None:
    work = tasks(saved="echo step 3; echo 'stopped at step 3 of 6, saved in x' >&2; exit 130")
    assert ends(launcher("launcher=joblib"), work, tmp_path) == {"saved": "stopped at step 3 of 6, saved in x"}


def test_jobs_run_at_the_same_time_with_one_gpu_each(shell: None, tmp_path: Path) -> None:
    # each waits until the other has started
    line = "touch {0}; n=0; while [ ! -e {1} ] && [ $n -lt 500 ]; do sleep 0.02; n=$((n+1)); done; [ -e {1} ]"
    one, two = (tmp_path / name for name in "ab")
    work = tasks(**{
        name: f"{line.format(mine, other)} && echo $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS"
        for name, mine, other in (("one", one, two), ("two", two, one))
    })  # fmt: skip
    assert ends(launcher("launcher=joblib", "launcher.gpus=2"), work, tmp_path) == {"one": "", "two": ""}
    given = [(tmp_path / "logs" / f"{name}.log").read_text().split() for name in ("one", "two")]
    assert sorted(gpu for gpu, _ in given) == ["0", "1"] and all(int(threads) >= 1 for _, threads in given)


def test_a_gpu_is_never_shared_by_two_jobs() -> None:
    with pytest.raises(ConfigError, match=r"launcher.n_jobs=2$"):
        launcher("launcher=joblib", "launcher.n_jobs=4", "launcher.gpus=2")


def test_submitit_runs_every_job_as_a_process_of_its_own(shell: None, tmp_path: Path) -> None:
    local = launcher("launcher=submitit", "launcher.cluster=local", "launcher.gpus_per_node=0")
    work = tasks(good="echo $WORLD_SIZE end", bad="echo 'error: no such data' >&2; exit 2")
    assert ends(local, work, tmp_path) == {"good": "", "bad": "no such data"}
    assert sorted(json.loads((tmp_path / "submitit" / "submitted.json").read_text())) == ["bad", "good"]


FAKE = {
    # takes a job: notes its script down, says its number; `sacct` says what the test has written
    "sbatch": 'cp "$1" {0}/script_$$; echo "Submitted batch job 7$(ls {0} | grep -c script_)"',
    "sacct": 'echo "JobID|State|NodeList"; cat {0}/states',
    "srun": "exit 1",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Put a fake cluster on the PATH; return functions that set job states and return the submitted scripts."""
    pytest.importorskip("submitit")
    fake = tmp_path / "cluster"
    fake.mkdir()
    for name, line in FAKE.items():
        (fake / name).write_text(f"#!/bin/sh\n{line.format(fake)}\n")
        (fake / name).chmod((fake / name).stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{fake}{os.pathsep}{os.environ['PATH']}")

    def look(states: str) -> list[str]:
        (fake / "states").write_text(states)
        return [path.read_text() for path in sorted(fake.glob("script_*"))]

    return look


def test_a_job_still_in_the_queue_is_waited_for_and_not_submitted_again(
    slurm: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import submitit.helpers

    # submitting is what is looked at here, not the waiting
    monkeypatch.setattr(submitit.helpers, "as_completed", lambda jobs, poll_frequency: [])
    resources = ["launcher=submitit", "launcher.partition=gpu", "launcher.nodes=2", "launcher.gpus_per_node=4"]
    queue, work = launcher(*resources, "launcher.mem_gb=64", "launcher.setup=[module load cuda]"), tasks(a="x", b="y")
    queue.check()
    slurm("71|PENDING|\n72|RUNNING|n1\n")
    ends(queue, work, tmp_path)
    first, second = slurm("71|PENDING|\n72|RUNNING|n1\n")
    for line in (
        "--partition=gpu",
        "--nodes=2",
        "--gpus-per-node=4",
        "--ntasks-per-node=4",
        "--mem=64GB",
        "--job-name=",
    ):
        assert f"#SBATCH {line}" in first
    assert "module load cuda" in first and "--time=1440" in second
    ends(queue, work, tmp_path)
    # one has ended meanwhile, whatever came of it
    slurm("71|PENDING|\n72|CANCELLED by 7|n1\n")
    ends(queue, work, tmp_path)
    assert len(slurm("")) == 3
    assert json.loads((tmp_path / "submitit/submitted.json").read_text()) == {"a": "71", "b": "73"}


def test_a_job_at_its_time_limit_saves_and_is_queued_again(tmp_path: Path) -> None:
    line = f"trap 'touch {tmp_path}/saved; exit 130' TERM; touch {tmp_path}/began; while :; do sleep 0.05; done"
    work = submitit.Work(["sh", "-c", line])
    work._process = subprocess.Popen(work.command)
    while not (tmp_path / "began").exists():
        time.sleep(0.01)
    again = work.checkpoint()
    assert (tmp_path / "saved").exists() and work._process.returncode == 130
    assert again.function.command == work.command


@pytest.mark.parametrize(
    "lines, words",
    [
        (["launcher.cluster=moon"], "allowed: slurm, local"),
        (["launcher.cluster=local", "launcher.nodes=2"], "launcher.nodes=1"),
        (["launcher.nodes=0"], "at least 1"),
        (["launcher.tasks_per_node=0"], "or null"),
    ],
)
def test_impossible_resources_are_refused(lines: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        launcher("launcher=submitit", *lines)


def test_a_launcher_that_cannot_work_here_is_refused_before_any_file_is_created(
    monkeypatch: pytest.MonkeyPatch, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert cli.main(["-m", "seed=0,1", "launcher=submitit"]) == 2
    assert "launcher.cluster=local" in capsys.readouterr().err
    monkeypatch.setattr(joblib, "find_spec", lambda name: None)
    assert cli.main(["-m", "seed=0,1", "launcher=joblib"]) == 2
    assert "'.[sweep]'" in capsys.readouterr().err
    assert list(empty_folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch",
    [
        ["launcher=joblib"],
        ["launcher=submitit", "launcher.cluster=local", "launcher.gpus_per_node=0"],
        # two processes a job, as torchrun would start them
        ["launcher=submitit", "launcher.cluster=local", "launcher.gpus_per_node=0", "launcher.tasks_per_node=2"],
    ],
    ids=["joblib", "submitit", "submitit, two processes"],
)
def test_the_table_of_a_launched_sweep_is_that_of_a_serial_one(launch: list[str], tmp_path: Path) -> None:
    lines = ["-m", "experiment=smoke", "model=transformer", "device=cpu", "seed=0,1", "name=s", "world.backend=auto"]
    for name, given in (("serial", []), ("launched", launch)):
        command = [sys.executable, str(ROOT / "train.py"), *lines, *given, f"out={tmp_path / name}"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
    one, other = ((tmp_path / name / "s/results.csv").read_text().split() for name in ("serial", "launched"))
    if "launcher.tasks_per_node=2" not in launch:
        assert one == other
    assert [line.split(",")[:2] for line in one] == [line.split(",")[:2] for line in other]
    environment = json.loads((tmp_path / "launched/s/seed-1/environment.json").read_text())
    assert "--job" in environment["command"]
