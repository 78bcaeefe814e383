"""The report on ablations: the sweeps of configs/sweep that vary one part of a model, read from their runs."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nested_learning.command.compose import VARIANT
from nested_learning.config.option_files import open_option_files
from nested_learning.report import RunResult, plot, read_run
from nested_learning.report.runs import commit_of, read_json
from nested_learning.report.sweep import compare_settings
from nested_learning.report.text import format_mean, table
from nested_learning.report.verdicts import Verdict


@dataclass(frozen=True)
class Ablation:
    """A sweep: the folder of its runs, its overrides besides `sweep=`, its heading, the metric of its verdicts.

    evaluated: metrics of `phase=eval`: heading of the column, name of the evaluation, name of the metric.
    """

    folder: str
    sweep: str
    overrides: str
    title: str
    metric: str
    evaluated: tuple[tuple[str, str, str], ...] = ()

    @property
    def command(self) -> str:
        """The command that trains its runs."""
        words = [
            "python train.py -m",
            f"sweep={self.sweep}",
            self.overrides,
            "out=runs/ablations",
            f"name={self.folder}",
        ]
        return " ".join(filter(None, words))


BY_POSITION = (
    ("bits per byte at 128-256", "perplexity", "bpb/128-256"),
    ("at 512-1024, beyond the training length", "perplexity", "bpb/512-1024"),
)
ABLATIONS = (
    Ablation("self_modifying", "self_modifying", "", "Self-modification on and off", "val/bpb", BY_POSITION),
    Ablation("cms_levels", "cms_levels", "", "One, three and five levels of the continuum memory", "val/bpb"),
    Ablation("level_optim", "level_optim", "", "A learning rule for each level", "val/bpb"),
    Ablation("attention", "attention", "", "Full attention, sliding window, delta rule", "val/bpb", BY_POSITION),
    Ablation(
        "attention_recall", "attention", "experiment=recall steps=400 val_every=100",
        "The same mixers on recall across 32 tokens", "val/accuracy",
    ),
)  # fmt: skip


def write_ablations(runs: Path, path: Path, figures: Path) -> Path:
    """Write the report on the sweeps in the folder `runs` to `path`, its plots into `figures`; return it."""
    figures.mkdir(parents=True, exist_ok=True)
    sweeps = {each: results for each in ABLATIONS if (results := read_sweep(runs / each.folder))}
    every = [result.directory for results in sweeps.values() for result in results]
    spent = math.fsum(read_json(run / "summary.json")["cpu_seconds"] for run in every)
    commits = sorted({commit_of(read_json(run / "environment.json")) for run in every})
    seeds = sorted({result.swept["seed"] for results in sweeps.values() for result in results})
    lines = [
        "# Ablations",
        "",
        *(f"    {each.command}" for each in sweeps),
        "    python -m scripts.make_reports ablations",
        "",
        f"Commit {', '.join(commits)}; seeds {', '.join(seeds)}; {len(every)} runs, {spent / 60:.0f} CPU minutes of "
        "training. Numbers are means over the seeds ± their standard error. Two variants are *apart* if the 95 % "
        "confidence interval of their difference excludes 0; the interval is over pairs of runs that read the same "
        "data in the same order, and is simultaneous for all pairs of a sweep. Models have two layers of width 64: the "
        "results need not hold at another size.",
    ]
    for each, results in sweeps.items():
        lines += section(each, results, figures, path.parent)
    missing = [f"`{each.folder}`" for each in ABLATIONS if each not in sweeps]
    lines += ["", f"Not run yet: {', '.join(missing)}."] if missing else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def section(each: Ablation, results: list[RunResult], figures: Path, page: Path) -> list[str]:
    """Report on a sweep."""
    variants = list(dict.fromkeys(result.swept[VARIANT] for result in results))
    evaluated = [one for one in each.evaluated if any(evaluation(result, one) is not None for result in results)]
    verdicts = compare_settings(results, each.metric)
    config = _config(results[0])
    lines = ["", f"## {each.title}", ""]
    lines += [about(each, config, results), ""]
    rows = []
    for variant in variants:
        of_it = [result for result in results if result.swept[VARIANT] == variant]
        summaries = [read_json(result.directory / "summary.json") for result in of_it]
        cells = [variant, f"{summaries[0]['parameters']:,}"]
        cells += [format_mean([result.metrics[each.metric] for result in of_it], 4)]
        for one in evaluated:
            cells.append(format_mean([evaluation(result, one) for result in of_it], 4))
        rows.append([*cells, str(len(of_it)), format_mean([summary["cpu_seconds"] for summary in summaries], 0)])
    headings = [heading for heading, _, _ in evaluated]
    lines += table(["", "parameters", each.metric, *headings, "seeds", "CPU seconds"], rows)
    lines += ["", *(f"- {describe(verdict, each.metric)}" for verdict in verdicts)]
    image = figures / f"ablations_{each.folder}.png"
    plot(image, results)
    return [*lines, "", f"![{each.title}]({image.relative_to(page).as_posix()})"]


def about(each: Ablation, config: dict[str, Any], results: Sequence[RunResult]) -> str:
    """Describe the training, and the overrides of each variant."""
    files = open_option_files(None).read(f"sweep/{each.sweep}")["variants"]
    trained = {result.swept[VARIANT] for result in results}
    parts = []
    for variant, values in files.items():
        if variant in trained:
            parts.append(f"{variant}: {', '.join(f'`{key}={_short(value)}`' for key, value in values.items())}")
    return (
        f"{config['steps']} steps of {config['data']['batch_size']} rows of data={config['data']['name']}. "
        f"{'; '.join(parts)}."
    )


def describe(verdict: Verdict, metric: str) -> str:
    """Write the difference of two variants, its interval, and whether they are apart."""
    first, second = (name.partition("=")[2] for name in (verdict.first, verdict.second))
    interval = "" if verdict.interval is None else f" [{verdict.interval[0]:+.4f}, {verdict.interval[1]:+.4f}]"
    words = "**apart**" if verdict.is_apart else "not apart"
    return f"{first} - {second}: {verdict.difference:+.4f}{interval} of {metric}, {verdict.num} {verdict.kind}: {words}"


def read_sweep(folder: Path) -> list[RunResult]:
    """Return the finished runs of a sweep; none where there is no such folder."""
    results = folder / "results.csv"
    if not results.exists():
        return []
    with results.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = list(rows[0])[1 : 1 + next(position for position, key in enumerate(list(rows[0])[1:]) if "/" in key)]
    runs = [(folder / row["run"], {key: row[key] for key in keys}) for row in rows]
    return [read_run(run, swept) for run, swept in runs if (run / "summary.json").exists()]


def evaluation(result: RunResult, evaluated: tuple[str, str, str]) -> float | None:
    """Return a metric of an evaluation of a run, None if the run was not evaluated."""
    _, name, metric = evaluated
    path = result.directory / "evals" / f"{name}.json"
    if not path.exists():
        return None
    value: float | None = read_json(path)["metrics"][metric]["value"]
    return value


def _short(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        words = [" ".join(str(each[key]) for key in ("name", "rule", "period") if key in each) for each in value]
        return f"[{', '.join(words)}]"
    return str(value).replace("'", "")


def _config(result: RunResult) -> dict[str, Any]:
    from nested_learning.checkpoint import read_config

    return read_config(result.directory)
