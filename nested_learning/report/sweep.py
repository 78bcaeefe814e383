"""What runs found, side by side: one row a run in results.csv, mean and standard error over seeds in a table; plots."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from nested_learning.report.plots import HINT, plot_lines

SEED = "seed"
CURVES = ("val/bpb", "val/loss")


@dataclass(frozen=True)
class RunResult:
    """One finished run: its directory, the overrides that set it apart, its final validation figures."""

    directory: Path
    swept: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """The runs that differ in their seed only: for each figure the mean and its standard error (None from one run)."""

    swept: dict[str, str]
    num_runs: int
    metrics: dict[str, tuple[float, float | None]]


def read_run(directory: Path, swept: dict[str, str]) -> RunResult:
    """Read the final validation figures from the summary.json of a finished run."""
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    return RunResult(
        directory, swept, {name: value for name, value in summary["final"].items() if name.startswith("val/")}
    )


def write_csv(path: Path, results: Sequence[RunResult]) -> None:
    """Write one line a run: its name, the swept overrides, the figures."""
    names = list(results[0].metrics)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", *results[0].swept, *names])
        for result in results:
            writer.writerow(
                [result.directory.name, *result.swept.values(), *(str(result.metrics[name]) for name in names)]
            )


def summarise(results: Sequence[RunResult]) -> list[Summary]:
    """Gather runs that differ in their seed only; figures that a run lacks are means over the others. Source: ours."""
    summaries = []
    for label, group in _by_label(results).items():
        values: dict[str, list[float]] = defaultdict(list)
        for result in group:
            for name, value in result.metrics.items():
                values[name].append(value)
        summaries.append(
            Summary(dict(label), len(group), {name: mean_and_stderr(each) for name, each in values.items()})
        )
    return summaries


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error, sample deviation / sqrt(n); None from one value, which tells nothing."""
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def render(summaries: Sequence[Summary]) -> str:
    """Write the summaries as a table in plain text, `mean ± stderr`."""
    names = _ordered(name for summary in summaries for name in summary.metrics)
    rows = [[*summaries[0].swept, "runs", *names]]
    for summary in summaries:
        figures = [_figure(*summary.metrics[name]) if name in summary.metrics else "" for name in names]
        rows.append([*summary.swept.values(), str(summary.num_runs), *figures])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def conclude(directory: Path, results: Sequence[RunResult]) -> None:
    """End a sweep in `directory`: print the table and say where results.csv and the plot are."""
    print(f"\n{render(summarise(results))}\n")
    print(f"every run: {directory / 'results.csv'}")
    try:
        plot(directory / "results.png", results)
    except ImportError:
        print(f"for a plot of the runs: {HINT}")
    else:
        print(f"plot: {directory / 'results.png'}")


def plot(path: Path, results: Sequence[RunResult]) -> None:
    """Draw validation against tokens read, one line for runs that differ in their seed only; the band is the stderr.

    Raises ImportError where matplotlib is not installed.
    """
    curve = next(name for name in CURVES if any(name in result.metrics for result in results))
    lines = {}
    for label, group in _by_label(results).items():
        points: dict[int, list[float]] = defaultdict(list)
        for result in group:
            for tokens, value in read_curve(result.directory, curve):
                points[tokens].append(value)
        name = " ".join(f"{key}={value}" for key, value in label) or "all runs"
        lines[name] = [(float(tokens), *mean_and_stderr(points[tokens])) for tokens in sorted(points)]
    plot_lines(path, lines, ("tokens", curve))


def read_curve(directory: Path, name: str) -> list[tuple[int, float]]:
    """Return (tokens read, figure) for every line of a run's metrics.jsonl that has the figure `name`."""
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["tokens"], line[name]) for line in map(json.loads, lines) if name in line]


def _by_label(results: Iterable[RunResult]) -> dict[tuple[tuple[str, str], ...], list[RunResult]]:
    groups: dict[tuple[tuple[str, str], ...], list[RunResult]] = defaultdict(list)
    for result in results:
        groups[tuple((key, value) for key, value in result.swept.items() if key != SEED)].append(result)
    return dict(groups)


def _ordered(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _figure(mean: float, stderr: float | None) -> str:
    return f"{mean:.4f}" if stderr is None else f"{mean:.4f} ± {stderr:.4f}"
