"""Finished runs as experiments use them: reading configurations, curves, costs and evaluations; recording the machine.

An experiment of `scripts/experiments` trains and evaluates each of its runs once, and writes its report from the run
directories alone, so that the report can be written again at any time.
"""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from nested_learning.config.schema import Config, from_yaml
from nested_learning.errors import ConfigError
from nested_learning.report.sweep import SUMMARY
from nested_learning.report.text import command_line

# in the folder of an experiment: its commands, and the machine that they ran on
MACHINE = "machine.json"


class Point(NamedTuple):
    """One validation during training: tokens read and CPU seconds spent so far, and the metric's value."""

    tokens: float
    cpu_seconds: float
    value: float


@dataclass(frozen=True)
class FinishedRun:
    """A finished run; `evaluations` are the JSON reports in its folder evals/, by name."""

    directory: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]

    def metric(self, evaluation: str, name: str) -> dict[str, Any]:
        """Return the metric `name` of an evaluation: value, stderr, n."""
        return self.evaluations[evaluation]["metrics"][name]

    def curve(self, name: str) -> list[Point]:
        """Return every validation after step 0 that has the metric `name`."""
        lines = (self.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        logged = [line for line in map(json.loads, lines) if name in line and line["step"]]
        return [Point(line["tokens"], line["perf/cpu_seconds"], line[name]) for line in logged]


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_finished_run(directory: Path) -> FinishedRun:
    """Read a finished run and every report in its folder evals/."""
    evaluations = {path.stem: read_json(path) for path in sorted((directory / "evals").glob("*.json"))}
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    environment, summary = read_json(directory / "environment.json"), read_json(directory / SUMMARY)
    return FinishedRun(directory, config, environment, summary, evaluations)


def summary_values(runs: Sequence[FinishedRun], key: str) -> list[float]:
    """Return an entry of summary.json, one value a run."""
    return [float(run.summary[key]) for run in runs]


def final_values(runs: Sequence[FinishedRun], name: str) -> list[float]:
    """Return a metric of the last validation, one value a run."""
    return [float(run.summary["final"][name]) for run in runs]


def metric_values(runs: Sequence[FinishedRun], evaluation: str, name: str) -> list[float]:
    """Return the metric `name` of an evaluation, one value a run."""
    return [float(run.metric(evaluation, name)["value"]) for run in runs]


def final_ratios(runs: Sequence[FinishedRun], baseline: Sequence[FinishedRun], name: str) -> list[float]:
    """Return a metric of the last validation divided by that of the baseline run with the same seed."""
    of_seed = {run.config["seed"]: run.summary["final"][name] for run in baseline}
    return [run.summary["final"][name] / of_seed[run.config["seed"]] for run in runs]


def commit_of(environment: Mapping[str, Any]) -> str:
    """Return the commit in environment.json of a run, and whether the code differed from it."""
    git = environment["git"]
    if git is None:
        return "unknown (no checkout)"
    return f"{git['commit'][:9]}{' with uncommitted changes' if git['diff'] else ''}"


def use_one_thread() -> None:
    """Make all libraries compute with one thread, here and in subprocesses; call it before torch is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def last_of_each_key(overrides: Sequence[str]) -> list[str]:
    """Return the overrides without those that a later one of the same key replaces."""
    return list({line.partition("=")[0]: line for line in overrides}.values())


def refuse_other_settings(config: Config, run: Path) -> None:
    """Raise ConfigError unless the finished `run` was trained with `config`."""
    if from_yaml(run / "config.yaml") != config:
        raise ConfigError(f"{run}: was made with other settings; move it away, or give another --out")


def write_machine(out: Path, module: str, jobs: int) -> None:
    """Write <out>/machine.json: the commands so far, the processor, and how many runs train at the same time.

    module: the script that runs, such as `scripts.experiments.niah.run`.
    """
    path, cpuinfo = out / MACHINE, Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    processors = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    commands = read_json(path)["commands"] if path.exists() else []
    command = command_line(module)
    about = {
        "commands": [*(each for each in commands if each != command), command],
        "cpu": processors[0] if processors else platform.processor(),
        "cores": os.cpu_count(),
        "jobs": jobs,
    }
    path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def describe_origin(out: Path, runs: Sequence[FinishedRun]) -> tuple[list[str], str]:
    """Return the commands of the experiment in `out` as indented lines, and a sentence: commits, machine, torch."""
    machine = json.loads((out / MACHINE).read_text(encoding="utf-8"))
    commits = ", ".join(sorted({commit_of(run.environment) for run in runs}))
    versions = ", ".join(sorted({run.environment["packages"]["torch"] for run in runs}))
    sentence = (
        f"Commit {commits}. {machine['cpu']}, {machine['cores']} cores, {machine['jobs']} runs at a time with one "
        f"thread each, torch {versions}."
    )
    return [f"    {command}" for command in machine["commands"]], sentence
