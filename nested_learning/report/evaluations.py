"""The reports of `phase=eval` of many runs, gathered by task and by model."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from nested_learning.checkpoint import CONFIG, read_config
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import CheckpointError
from nested_learning.report.sweep import mean_and_stderr

# options that do not change what a run learns; runs that differ only in these have the same setting
INCIDENTAL = (
    "seed", "name", "out", "evals", "logger", "launcher", "val_every", "save_every", "log_every", "sample_every",
    "device", "num_workers", "micro_batches", "resume", "profile", "prompt", "prompts", "sampling", "world", "plan",
    "checkpoint", "weights", "phase", "memory", "dry_run", "backend", "recompute", "compile",
)  # fmt: skip
# options of a pack that change metrics by rounding only
SPEED = ("batch_size",)
MEMORIZE, ONLINE = "memorize", "online"


class EvalTask(NamedTuple):
    """What was evaluated: the pack, its options as on the command line, and a hash of all of them."""

    pack: str
    overrides: str
    fingerprint: str


class Point(NamedTuple):
    """The mean of a metric over `num_runs` of `all_runs` seeds, and its error; of one run, that over `n` examples."""

    value: float
    stderr: float | None
    n: int
    num_runs: int
    all_runs: int

    @property
    def is_of_all(self) -> bool:
        """Say whether every run has the metric."""
        return self.num_runs == self.all_runs


@dataclass(frozen=True)
class EvaluatedModel:
    """A model, the name of its runs without the seed, and the memory policy with its changed options."""

    model: str
    runs: str
    policy: str


@dataclass(frozen=True)
class EvalReport:
    """One report file: the run, its seed, the model, the task, and the metrics as in the file.

    gains: the differences to memory=online, with paired errors.
    """

    run: Path
    seed: int
    model: EvaluatedModel
    task: EvalTask
    metrics: Mapping[str, Mapping[str, Any]]
    gains: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TaskResults:
    """All results on one task: metrics of each model, gains over memory=online, and the mean chance of each metric."""

    task: EvalTask
    points: dict[EvaluatedModel, dict[str, Point]]
    gains: dict[EvaluatedModel, dict[str, Point]]
    chances: dict[str, float]


def read_reports(*folders: Path) -> list[EvalReport]:
    """Read every report of every run below `folders`; one of memorizing also gives that of memory=online.

    Files that are not reports of `phase=eval`, and runs without a configuration, are left out.
    """
    reports: dict[tuple[Path, EvaluatedModel, EvalTask], EvalReport] = {}
    root = Path(os.path.commonpath(folders))
    for path in sorted(path for folder in folders for path in folder.rglob("evals/*.json")):
        for report in read_report(path, root):
            # memory=online can be there twice: in a report of its own, and as the baseline of memorizing
            reports.setdefault((report.run, report.model, report.task), report)
    return list(reports.values())


def read_report(path: Path, folder: Path) -> Iterator[EvalReport]:
    """Yield the report in the file `path`, and the baseline in it; nothing for other files."""
    run = path.parents[1]
    report = json.loads(path.read_text(encoding="utf-8"))
    if not (run / CONFIG).is_file() or not isinstance(report, dict) or not {"pack", "policy", "metrics"} <= set(report):
        return
    try:
        config = read_config(run)
    except CheckpointError:
        return
    name = run_name_of(str(run.relative_to(folder)) if run != folder else run.name, config)
    # an earlier checkpoint is a setting of its own
    name += f" at step {report['step']}" if report["step"] != config["steps"] else ""
    task = task_of(report)
    model = EvaluatedModel(report["model"], name, policy_of(report["policy"], report["weights"]))
    yield EvalReport(run, config["seed"], model, task, report["metrics"], report.get("difference", {}))
    if "baseline" in report:
        online = EvaluatedModel(model.model, name, policy_of({"name": ONLINE}, report["weights"]))
        yield EvalReport(run, config["seed"], online, task, report["baseline"], {})


def run_name_of(path: str, config: Mapping[str, Any]) -> str:
    """Return the path of a run without its seed, such as `recall_hope` for `recall_hope_0`."""
    seed = config["seed"]
    bare = re.sub(rf"(^|[_/])(?:seed[-_=]?)?{seed}(?=$|[_/])", r"\1", path)
    return re.sub(r"_+(?=/|$|_)|(?<=/)_+", "", bare).strip("_/") or path


def hash_options(config: Mapping[str, Any]) -> str:
    """Return a hash of the options that change what a run learns, but for the seed."""
    kept = {key: value for key, value in config.items() if key not in INCIDENTAL}
    return sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:8]


def task_of(report: Mapping[str, Any]) -> EvalTask:
    """Return the task of a report: the options of the pack and of the data."""
    pack, data = (
        {key: value for key, value in report[part].items() if key not in SPEED and value is not None}
        for part in ("pack", "data_options")
    )
    options = [(f"evals.{pack['name']}", pack), ("data", data)]
    overrides = [f"{key}.{name}={_short(value)}" for key, values in options for name, value in values.items()]
    overrides = [each for each in overrides if ".name=" not in each]
    line = " ".join([f"evals=[{pack['name']}]", f"data={report['data']}", *overrides])
    full = sha256(json.dumps([pack, report["data"], data], sort_keys=True).encode())
    return EvalTask(pack["name"], line, full.hexdigest()[:8])


def policy_of(policy: Mapping[str, Any], weights: str) -> str:
    """Write a memory policy: its name, and the options that differ from the defaults."""
    defaults = _defaults(policy["name"])
    changed = [
        f"{key}={_short(value)}" for key, value in policy.items() if key != "name" and value != defaults.get(key)
    ]
    return " ".join([policy["name"], *changed, *([f"weights={weights}"] if weights != "model" else [])])


def gather(reports: Sequence[EvalReport]) -> list[TaskResults]:
    """Gather reports by task, and those of one task by model; runs that differ only in their seed are averaged."""
    tasks: dict[EvalTask, dict[EvaluatedModel, list[EvalReport]]] = {}
    prints = {report.run: hash_options(read_config(report.run)) for report in reports}
    for report in reports:
        models = tasks.setdefault(report.task, {})
        models.setdefault(_unique(report, models, prints), []).append(report)
    results = []
    for task, models in tasks.items():
        chances: dict[str, list[float]] = {}
        for run in chain(*models.values()):
            for name, metric in run.metrics.items():
                if metric.get("chance") is not None:
                    chances.setdefault(name, []).append(metric["chance"])
        points = {model: average([run.metrics for run in runs]) for model, runs in models.items()}
        gains = {model: average([run.gains for run in runs]) for model, runs in models.items()}
        results.append(
            TaskResults(
                task,
                points,
                {model: each for model, each in gains.items() if each},
                {name: fmean(values) for name, values in chances.items()},
            )
        )
    return sorted(results, key=lambda each: each.task)


def average(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Point]:
    """Return each metric, averaged over the runs that have it, with the standard error over these runs.

    If only one run has the metric, its error is that of its examples. A value that is not finite is null in a report,
    and a metric that is so in every run is NaN.
    """
    points = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        given = [run[name] for run in runs if name in run]
        metrics = [metric for metric in given if metric["value"] is not None]
        n = round(fmean(metric["n"] for metric in given))
        if not metrics:
            points[name] = Point(math.nan, None, n, 0, len(runs))
            continue
        mean, error = mean_and_stderr([metric["value"] for metric in metrics])
        stderr = metrics[0]["stderr"] if len(metrics) == 1 else error
        points[name] = Point(mean, stderr, n, len(metrics), len(runs))
    return points


def _unique(
    report: EvalReport, models: Mapping[EvaluatedModel, Sequence[EvalReport]], prints: Mapping[Path, str]
) -> EvaluatedModel:
    """Return the model of `report`, with a number added if runs with another configuration have the same name."""
    model, number = report.model, 1
    while model in models and prints[models[model][0].run] != prints[report.run]:
        number += 1
        model = EvaluatedModel(model.model, f"{report.model.runs} ({number})", model.policy)
    return model


@lru_cache
def _defaults(policy: str) -> dict[str, Any]:
    return open_option_files(None).read(f"memory/{policy}")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(value) + "}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and "/" in value:
        # the folder of a file is of no interest to others
        return Path(value).name
    if isinstance(value, list):
        return f"[{','.join(map(_short, value))}]"
    return value if isinstance(value, str) else json.dumps(value).replace('"', "").replace(", ", ",")
