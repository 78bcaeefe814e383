"""The report on ablations: the sweeps of configs/sweep that vary one part of a model, read from their runs."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nested_learning.command.compose import VARIANT
from nested_learning.config.option_files import open_option_files
from nested_learning.report import RunResult, mean_and_stderr, plot, read_run
from nested_learning.report.sweep import compare_settings
from nested_learning.report.verdicts import Verdict


@dataclass(frozen=True)
class Ablation:
    """A sweep: the folder of its runs, its overrides beside `sweep=`, what it is about, the figure it is judged by.

    `asked`: figures of reports of `phase=eval`, by heading: the report's name and the figure's.
    """

    folder: str
    sweep: str
    overrides: str
    title: str
    figure: str
    asked: tuple[tuple[str, str, str], ...] = ()

    @property
    def command(self) -> str:
        """The command that trains it."""
        words = [
            "python train.py -m",
            f"sweep={self.sweep}",
            self.overrides,
            "out=runs/ablations",
            f"name={self.folder}",
        ]
        return " ".join(filter(None, words))


BEYOND = (
    ("bits per byte at 128-256", "perplexity", "bpb/128-256"),
    ("at 512-1024, beyond training", "perplexity", "bpb/512-1024"),
)
ABLATIONS = (
    Ablation("self_modifying", "self_modifying", "", "Self-modification on and off", "val/bpb", BEYOND),
    Ablation("cms_levels", "cms_levels", "", "One, three and five levels of the continuum memory", "val/bpb"),
    Ablation("level_optim", "level_optim", "", "A learning rule for each level", "val/bpb"),
    Ablation("attention", "attention", "", "Attention over all the past, over a window, delta rule", "val/bpb", BEYOND),
    Ablation(
        "attention_recall", "attention", "experiment=recall steps=400 val_every=100",
        "The same mixers where answers lie 32 tokens back", "val/accuracy",
    ),
)  # fmt: skip
ASK = "python train.py -m phase=eval evals=[perplexity] checkpoint=runs/ablations/attention/...,..."


def write_ablations(runs: Path, path: Path, figures: Path) -> Path:
    """Write the report on the sweeps in the folder `runs` to `path`, its plots into `figures`; return it."""
    figures.mkdir(parents=True, exist_ok=True)
    found = {each: results for each in ABLATIONS if (results := read_sweep(runs / each.folder))}
    every = [result.directory for results in found.values() for result in results]
    spent = math.fsum(read_json(run / "summary.json")["cpu_seconds"] for run in every)
    commits = sorted({commit_of(run) for run in every})
    seeds = sorted({result.swept["seed"] for results in found.values() for result in results})
    lines = [
        "# Ablations",
        "",
        *(f"    {each.command}" for each in found),
        "    python -m scripts.make_reports ablations",
        "",
        f"Commit {', '.join(commits)}; seeds {', '.join(seeds)}; {len(every)} runs, {spent / 60:.0f} CPU minutes of "
        "training. Figures are means over the seeds ± their standard error. Two variants are *apart* where the 95 % "
        "interval of their difference, of pairs of runs that read the same data in the same order, leaves out 0; the "
        "intervals of a sweep hold together. Models are of two layers of width 64: what holds here need not hold at "
        "another size.",
    ]
    for each, results in found.items():
        lines += section(each, results, figures, path.parent)
    missing = [f"`{each.folder}`" for each in ABLATIONS if each not in found]
    lines += ["", f"Not run yet: {', '.join(missing)}."] if missing else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def section(each: Ablation, results: list[RunResult], figures: Path, page: Path) -> list[str]:
    """Write what came of a sweep."""
    variants = list(dict.fromkeys(result.swept[VARIANT] for result in results))
    asked = [one for one in each.asked if any(answer(result, one) is not None for result in results)]
    verdicts = compare_settings(results, each.figure)
    config = _config(results[0])
    lines = ["", f"## {each.title}", ""]
    lines += [about(each, config, results), ""]
    lines += [_row(["", "parameters", each.figure, *(heading for heading, _, _ in asked), "seeds", "CPU seconds"])]
    lines += [_row(["---"] * (5 + len(asked)))]
    for variant in variants:
        of_it = [result for result in results if result.swept[VARIANT] == variant]
        summaries = [read_json(result.directory / "summary.json") for result in of_it]
        cells = [variant, f"{summaries[0]['parameters']:,}", pm([result.metrics[each.figure] for result in of_it])]
        cells += [pm([value for result in of_it if (value := answer(result, one)) is not None]) for one in asked]
        lines.append(_row([*cells, str(len(of_it)), pm([summary["cpu_seconds"] for summary in summaries], 0)]))
    lines += ["", *(f"- {told(verdict, each.figure)}" for verdict in verdicts)]
    image = figures / f"ablations_{each.folder}.png"
    plot(image, results)
    return [*lines, "", f"![{each.title}]({image.relative_to(page).as_posix()})"]


def about(each: Ablation, config: dict[str, Any], results: Sequence[RunResult]) -> str:
    """Say what was trained, and what the variants set."""
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


def told(verdict: Verdict, figure: str) -> str:
    """Say what may be said about two variants."""
    first, second = (name.partition("=")[2] for name in (verdict.first, verdict.second))
    interval = "" if verdict.interval is None else f" [{verdict.interval[0]:+.4f}, {verdict.interval[1]:+.4f}]"
    words = "**apart**" if verdict.is_apart else "not apart"
    return f"{first} - {second}: {verdict.difference:+.4f}{interval} of {figure}, {verdict.num} {verdict.kind}: {words}"


def read_sweep(folder: Path) -> list[RunResult]:
    """Return the finished runs of a sweep; none where there is no such folder."""
    table = folder / "results.csv"
    if not table.exists():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = list(rows[0])[1 : 1 + next(place for place, key in enumerate(list(rows[0])[1:]) if "/" in key)]
    there = [(folder / row["run"], {key: row[key] for key in keys}) for row in rows]
    return [read_run(run, swept) for run, swept in there if (run / "summary.json").exists()]


def answer(result: RunResult, asked: tuple[str, str, str]) -> float | None:
    """Return a figure of a report of a run, None where it was not asked."""
    _, report, figure = asked
    path = result.directory / "evals" / f"{report}.json"
    if not path.exists():
        return None
    value: float | None = read_json(path)["metrics"][figure]["value"]
    return value


def pm(values: Sequence[float], digits: int = 4) -> str:
    """Write a mean with its error."""
    if not values:
        return "-"
    mean, error = mean_and_stderr(list(values))
    return f"{mean:.{digits}f}" if error is None else f"{mean:.{digits}f} ± {error:.{digits}f}"


def _short(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        words = [" ".join(str(each[key]) for key in ("name", "rule", "period") if key in each) for each in value]
        return f"[{', '.join(words)}]"
    return str(value).replace("'", "")


def _config(result: RunResult) -> dict[str, Any]:
    from nested_learning.checkpoint import read_config

    return read_config(result.directory)


def commit_of(run: Path) -> str:
    """Return the commit that a run was made at, `+` for one with changes."""
    git = read_json(run / "environment.json")["git"]
    return "unknown" if git is None else f"{git['commit'][:9]}{'+' if git['diff'] else ''}"


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
