"""A sweep: checked configurations, run into one folder, and the table that compares them.

A sweep has no state of its own besides the files of its runs. The same command, given again after any interruption,
skips finished runs, resumes the others, and ends with the same table.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from nested_learning import report
from nested_learning.command.compose import Job
from nested_learning.command.preflight import check_inputs
from nested_learning.config.schema import Config, to_yaml
from nested_learning.errors import ConfigError, Stopped, SweepError
from nested_learning.files import read_holder
from nested_learning.launcher.protocol import Task
from nested_learning.launcher.serial import SerialConfig

# characters allowed in run names; others would need quotes on a command line
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+")
# sweeping over this key evaluates several runs, each in its own directory
CHECKPOINT = "checkpoint"
# characters of a name; file systems allow 255
MAX_NAME = 120


def run_sweep(jobs: Sequence[Job], run: Callable[[Config], object], name: str) -> None:
    """Run every job that is not done yet; one that fails is reported, and the others continue.

    Runs of `phase=train` go into the folder <out>/<config.name, or else `name`>, with results.csv, a table and a plot
    that compare them. Raises ConfigError before the first job when names would clash or a run directory holds a run
    with another configuration, and SweepError at the end when jobs failed.
    """
    _check(jobs)
    first = jobs[0].config
    launcher, folder = first.launcher, Path(first.out) / (first.name or name)
    trains = first.phase.trains and not first.dry_run
    jobs = assign_directories(jobs, folder, trains)
    finished = [trains and is_finished(job.config) for job in jobs]
    tasks = []
    for index, (job, is_done) in enumerate(zip(jobs, finished, strict=True)):
        title = f"job {index + 1} of {len(jobs)}: {' '.join(f'{key}={value}' for key, value in job.swept.items())}"
        if is_done:
            _print_first(f"{title}: finished already")
        else:
            tasks.append(_task(job, title, run))
    failures = {}
    try:
        # closed at once when interrupted: then the launcher stops the jobs that it has started
        with closing(launcher.launch(tasks, folder)) as outcomes:
            for outcome in outcomes:
                if outcome.error:
                    failures[outcome.task.name] = outcome.error
                    _print_first(f"{outcome.task.title}: failed: {outcome.error}")
                # after each job, so that an interrupted sweep has the results of the finished ones
                if trains:
                    collect_results(jobs, folder)
    except KeyboardInterrupt as interrupt:
        where = interrupt.where if isinstance(interrupt, Stopped) else str(interrupt) or "interrupted"
        raise Stopped(where, "the same command resumes the sweep") from interrupt
    if trains and (results := collect_results(jobs, folder)) and _is_first():
        report.conclude(folder, results)
    if failures:
        errors = "; ".join(f"{name}: {error}" for name, error in failures.items())
        raise SweepError(f"{len(failures)} of {len(jobs)} jobs failed; the same command tries them again: {errors}")


def sweep_name(lines: Sequence[str]) -> str:
    """Return the name of the sweep with the overrides `lines`, in any order; launcher settings do not change it."""
    lines = sorted(line for line in lines if not line.startswith("launcher"))
    return f"sweep_{sha256(json.dumps(lines).encode()).hexdigest()[:12]}"


def assign_directories(jobs: Sequence[Job], folder: Path, trains: bool = True) -> list[Job]:
    """Return the jobs as runs inside `folder`, each named after its own overrides, such as `seed-0_model-hope`.

    Each becomes a single job with launcher=serial. Jobs that do not train keep their directory; evaluations of one
    checkpoint get different report names.
    """
    named: dict[str, Job] = {}
    for job in jobs:
        name = run_name(job.swept)
        while name in named:
            name += "+"
        config = replace(job.config, launcher=SerialConfig(name="serial"))
        if trains:
            config = replace(config, out=str(folder), name=name)
        elif config.phase.name == "eval" and (others := {k: v for k, v in job.swept.items() if k != CHECKPOINT}):
            config = replace(config, name=run_name(others))
        named[name] = Job(config, job.swept)
    return list(named.values())


def run_name(swept: dict[str, str]) -> str:
    """Return a run name made of the overrides of the sweep."""
    name = "_".join(f"{_plain_characters(key)}-{_plain_characters(value)}" for key, value in swept.items()) or "run"
    if len(name) <= MAX_NAME:
        return name
    return f"{name[:MAX_NAME]}-{sha256(json.dumps(swept).encode()).hexdigest()[:12]}"


def is_finished(config: Config) -> bool:
    """Return whether the run of `config` is complete. Raises ConfigError when its directory holds another run."""
    directory = directory_of(config)
    if not directory.exists():
        return False
    # imports torch, so only where there is a run to compare with
    from nested_learning import checkpoint
    from nested_learning.train.run import refuse_changes

    if (directory / checkpoint.CONFIG).exists():
        refuse_changes(directory, checkpoint.read_config(directory), asdict(config))
    summary = directory / report.SUMMARY
    return summary.exists() and json.loads(summary.read_text(encoding="utf-8"))["step"] == config.steps


def wait_for_others(directory: Path) -> None:
    """Wait until no process holds the run `directory`: a job of a killed sweep may still be training in it."""
    path = directory / "lock"
    if not path.exists():
        return
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _print_first(f"{directory} is in use by process {read_holder(path)}: waiting for it")
        lock.acquire()
    lock.release()


def collect_results(jobs: Sequence[Job], folder: Path) -> list[report.RunResult]:
    """Read the results of the finished runs, in the order of `jobs`, and write them to results.csv."""
    runs = [(directory_of(job.config), job.swept) for job in jobs]
    results = [report.read_run(directory, swept) for directory, swept in runs if (directory / report.SUMMARY).exists()]
    if results and _is_first():
        report.write_csv(folder / "results.csv", results)
    return results


def directory_of(config: Config) -> Path:
    """Return the run directory of a job."""
    assert config.name is not None, "assign_directories() names every run"
    return Path(config.out) / config.name


def _check(jobs: Sequence[Job]) -> None:
    for key in ("name", "out"):
        if any(key in job.swept for job in jobs):
            raise ConfigError(
                f"{key}: a sweep names its runs after what it sweeps over; give one {key}= for all of them"
            )
    if any(key.split(".")[0] == "launcher" for job in jobs for key in job.swept):
        raise ConfigError("launcher: one launcher runs all jobs of a sweep; give it one value")
    launcher = jobs[0].config.launcher
    if launcher.name != "serial" and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(f"launcher={launcher.name}: torchrun shares its processes with launcher=serial only")
    launcher.check()
    # a cluster may have files that this machine has not
    for job in jobs if launcher.name != "submitit" else []:
        check_inputs(job.config)


def _task(job: Job, title: str, run: Callable[[Config], object]) -> Task:
    def run_here() -> None:
        if job.config.name is not None and _is_first():
            wait_for_others(directory_of(job.config))
        run(job.config)

    return Task(job.config.name or run_name(job.swept), title, to_yaml(job.config), run_here)


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _print_first(line: str) -> None:
    if _is_first():
        print(line, flush=True)


def _plain_characters(text: str) -> str:
    return "".join(letter if letter in PLAIN else "-" for letter in text).strip("-")
