"""What `phase=eval` found in many runs: read from their reports, gathered by what was asked, and of whom."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from nested_learning.checkpoint import CONFIG, read_config
from nested_learning.config.option_files import open_option_files
from nested_learning.errors import CheckpointError
from nested_learning.report.sweep import mean_and_stderr

# what says how a run was made, or where; runs that differ in nothing else are the same setting
INCIDENTAL = (
    "seed", "name", "out", "evals", "logger", "launcher", "val_every", "save_every", "log_every", "sample_every",
    "device", "num_workers", "micro_batches", "resume", "profile", "prompt", "prompts", "sampling", "world", "plan",
    "checkpoint", "weights", "phase", "memory", "dry_run", "backend", "recompute", "compile",
)  # fmt: skip
# of a question, what changes no figure but by rounding
SPEED = ("batch_size",)
MEMORIZE, ONLINE = "memorize", "online"


class Asked(NamedTuple):
    """A question: the pack, what was asked in the words of the command line, and a hash of it in full."""

    pack: str
    words: str
    fingerprint: str


class Point(NamedTuple):
    """A figure over `num_runs` runs that differ in their seed; of one run the error is over its `n` examples."""

    value: float
    stderr: float | None
    n: int
    num_runs: int


@dataclass(frozen=True)
class Subject:
    """Who was asked: the model, the runs as a name without their seed, the memory policy in words."""

    model: str
    runs: str
    policy: str


@dataclass(frozen=True)
class Answer:
    """One report: the run, its seed, who it is, what was asked, and the figures as the file has them.

    `gains`: the differences to the same without memorizing, with the error of pairs.
    """

    run: Path
    seed: int
    subject: Subject
    question: Asked
    figures: Mapping[str, Mapping[str, Any]]
    gains: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Question:
    """What was asked, the figures of each subject, and its gains; `chances`: what who knows nothing gets."""

    asked: Asked
    found: dict[Subject, dict[str, Point]]
    gains: dict[Subject, dict[str, Point]]
    chances: dict[str, float]


def read_answers(*folders: Path) -> list[Answer]:
    """Read every report of every run below `folders`, a report of memorizing also for what it is compared with.

    Files that are no reports of `phase=eval`, and of runs without a configuration, are left out.
    """
    found: dict[tuple[Path, Subject, Asked], Answer] = {}
    root = Path(os.path.commonpath(folders))
    for path in sorted(path for folder in folders for path in folder.rglob("evals/*.json")):
        for answer in read_report(path, root):
            # what was found without memorizing is there twice: by itself, and beside what memorizing found
            found.setdefault((answer.run, answer.subject, answer.question), answer)
    return list(found.values())


def read_report(path: Path, folder: Path) -> Iterator[Answer]:
    """Yield what the report `path` holds."""
    run = path.parents[1]
    report = json.loads(path.read_text(encoding="utf-8"))
    if not (run / CONFIG).is_file() or not isinstance(report, dict) or not {"pack", "policy", "metrics"} <= set(report):
        return
    try:
        config = read_config(run)
    except CheckpointError:
        return
    name = setting_of(str(run.relative_to(folder)) if run != folder else run.name, config)
    # a checkpoint on the way is not the run
    name += f" at step {report['step']}" if report["step"] != config["steps"] else ""
    asked = ask_of(report)
    subject = Subject(report["model"], name, policy_of(report["policy"], report["weights"]))
    yield Answer(run, config["seed"], subject, asked, report["metrics"], report.get("difference", {}))
    if "baseline" in report:
        online = Subject(subject.model, name, policy_of({"name": ONLINE}, report["weights"]))
        yield Answer(run, config["seed"], online, asked, report["baseline"], {})


def setting_of(place: str, config: Mapping[str, Any]) -> str:
    """Name a run without its seed, such as `recall_hope` for `recall_hope_0`."""
    seed = config["seed"]
    bare = re.sub(rf"(^|[_/])(?:seed[-_=]?)?{seed}(?=$|[_/])", r"\1", place)
    return re.sub(r"_+(?=/|$|_)|(?<=/)_+", "", bare).strip("_/") or place


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return a hash of what a run was made with, its seed aside."""
    kept = {key: value for key, value in config.items() if key not in INCIDENTAL}
    return sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:8]


def ask_of(report: Mapping[str, Any]) -> Asked:
    """Say what was asked: the pack with its options, the data with theirs."""
    pack, data = (
        {key: value for key, value in report[part].items() if key not in SPEED and value is not None}
        for part in ("pack", "data_options")
    )
    options = [(f"evals.{pack['name']}", pack), ("data", data)]
    words = [f"{key}.{name}={_short(value)}" for key, values in options for name, value in values.items()]
    words = [word for word in words if ".name=" not in word]
    shown = " ".join([f"evals=[{pack['name']}]", f"data={report['data']}", *words])
    full = sha256(json.dumps([pack, report["data"], data], sort_keys=True).encode())
    return Asked(pack["name"], shown, full.hexdigest()[:8])


def policy_of(policy: Mapping[str, Any], weights: str) -> str:
    """Say a memory policy in words: its name, and what of it is not as shipped."""
    usual = _shipped(policy["name"])
    changed = [f"{key}={_short(value)}" for key, value in policy.items() if key != "name" and value != usual.get(key)]
    return " ".join([policy["name"], *changed, *([f"weights={weights}"] if weights != "model" else [])])


def gather(answers: Sequence[Answer]) -> list[Question]:
    """Put answers to the same question together, and of these the runs that differ in their seed only."""
    asked: dict[Asked, dict[Subject, list[Answer]]] = {}
    prints = {answer.run: fingerprint(read_config(answer.run)) for answer in answers}
    for answer in answers:
        subject = _apart(answer, asked.get(answer.question, {}), prints)
        asked.setdefault(answer.question, {}).setdefault(subject, []).append(answer)
    questions = []
    for question, subjects in asked.items():
        chances = {
            name: figure["chance"]
            for runs in subjects.values()
            for run in runs
            for name, figure in run.figures.items()
            if figure.get("chance") is not None
        }
        found = {who: average([run.figures for run in runs]) for who, runs in subjects.items()}
        gains = {who: average([run.gains for run in runs]) for who, runs in subjects.items()}
        questions.append(Question(question, found, {who: each for who, each in gains.items() if each}, chances))
    return sorted(questions, key=lambda question: question.asked)


def average(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Point]:
    """Return each figure that all `runs` have: the mean and its error over the runs; of one run, its own error."""
    points = {}
    for name in runs[0]:
        figures = [run[name] for run in runs if name in run and run[name]["value"] is not None]
        if not figures:
            continue
        mean, error = mean_and_stderr([figure["value"] for figure in figures])
        n = round(fmean(figure["n"] for figure in figures))
        points[name] = Point(mean, figures[0]["stderr"] if len(figures) == 1 else error, n, len(figures))
    return points


def _apart(answer: Answer, there: Mapping[Subject, Sequence[Answer]], prints: Mapping[Path, str]) -> Subject:
    """Return the subject of `answer`, under a name of its own where the name stands for runs made otherwise."""
    subject, number = answer.subject, 1
    while subject in there and prints[there[subject][0].run] != prints[answer.run]:
        number += 1
        subject = Subject(subject.model, f"{answer.subject.runs} ({number})", subject.policy)
    return subject


@lru_cache
def _shipped(policy: str) -> dict[str, Any]:
    return open_option_files(None).read(f"memory/{policy}")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(value) + "}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and "/" in value:
        # where a file lies says nothing to others
        return Path(value).name
    if isinstance(value, list):
        return f"[{','.join(map(_short, value))}]"
    return value if isinstance(value, str) else json.dumps(value).replace('"', "").replace(", ", ",")
