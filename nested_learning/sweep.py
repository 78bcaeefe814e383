"""A sweep: checked configurations, trained one after another into one folder, and the table that compares them."""

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from nested_learning import report
from nested_learning.compose import Job
from nested_learning.config import Config
from nested_learning.errors import ConfigError

# what the names of runs are made of; anything else would need quotes on the next command line
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+")


def run_sweep(jobs: Sequence[Job], run: Callable[[Config], object]) -> None:
    """Run every job, in order; the first that fails ends the sweep with its error.

    Runs of `phase=train` go into the folder <out>/<name of the sweep>, where results.csv, the table and a plot compare
    what is there so far after every job. Raises ConfigError before the first job when names would clash.
    """
    for key in ("name", "out"):
        if any(key in job.swept for job in jobs):
            raise ConfigError(
                f"{key}: a sweep names its runs after what it sweeps over; give one {key}= for all of them"
            )
    first = jobs[0].config
    trains = first.phase.name == "train" and not first.dry_run
    if trains and first.name is None and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("-m under torchrun: every process must find the same folder; give the sweep a name=")
    if trains:
        jobs = place(jobs, Path(first.out) / (first.name or _made_up_name()))
    results = []
    for index, job in enumerate(jobs):
        print(
            f"job {index + 1} of {len(jobs)}: {' '.join(f'{key}={value}' for key, value in job.swept.items())}",
            flush=True,
        )
        run(job.config)
        if trains:
            results.append(report.read_run(_directory(job), job.swept))
            report.write_csv(_directory(job).parent / "results.csv", results)
    if trains:
        report.conclude(_directory(jobs[0]).parent, results)


def place(jobs: Sequence[Job], folder: Path) -> list[Job]:
    """Return the jobs as runs inside `folder`, each named after its own overrides, such as `seed-0_model-hope`."""
    named: dict[str, Job] = {}
    for job in jobs:
        name = "_".join(f"{_plain(key)}-{_plain(value)}" for key, value in job.swept.items()) or "run"
        while name in named:
            name += "+"
        named[name] = Job(replace(job.config, out=str(folder), name=name), job.swept)
    return list(named.values())


def _directory(job: Job) -> Path:
    assert job.config.name is not None, "place() names every run"
    return Path(job.config.out) / job.config.name


def _made_up_name() -> str:
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_sweep_{secrets.token_hex(4)}"


def _plain(text: str) -> str:
    return "".join(letter if letter in PLAIN else "-" for letter in text).strip("-")
