"""The results of a sweep: a row a run in results.csv, means and standard errors over seeds in a table, and plots."""

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size
from statistics import fmean, stdev
from typing import NamedTuple

from nested_learning.files import write_atomic
from nested_learning.logger.words import decimal
from nested_learning.report.plots import HINT, plot_lines
from nested_learning.report.verdicts import Measured, Verdict, compare_all, describe, render_verdicts

SUMMARY = "summary.json"
SEED = "seed"
# settings are compared by the first of these that the runs have; lower is better
CURVES = ("val/bpb", "val/loss")
# comparisons that are printed; all are in comparisons.csv
MAX_PRINTED = 10


@dataclass(frozen=True)
class RunResult:
    """One finished run: its directory, its overrides in the sweep, its final validation metrics.

    data_order: the sha256 of its training data in their order, "" if unknown.
    """

    directory: Path
    swept: dict[str, str]
    metrics: dict[str, float]
    data_order: str = ""


class Mean(NamedTuple):
    """The mean of a metric over the `num_runs` runs that have it, and its standard error (None of one run)."""

    value: float
    stderr: float | None
    num_runs: int


@dataclass(frozen=True)
class Summary:
    """The `num_runs` runs of a setting, which differ only in their seed: the mean of each metric."""

    swept: dict[str, str]
    num_runs: int
    metrics: dict[str, Mean]


def read_run(directory: Path, swept: dict[str, str]) -> RunResult:
    """Read the final validation metrics from the summary.json of a finished run."""
    summary = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
    metrics = {name: value for name, value in summary["final"].items() if name.startswith("val/")}
    # runs made before it was noted have none
    return RunResult(directory, swept, metrics, summary.get("data_order", ""))


def write_csv(path: Path, results: Sequence[RunResult]) -> None:
    """Write one line a run: its name, the swept overrides, the metrics ("" for one that it lacks), the data's order."""
    names = _ordered(name for result in results for name in result.metrics)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", *results[0].swept, *names, "data_order"])
    for result in results:
        values = [str(result.metrics[name]) if name in result.metrics else "" for name in names]
        writer.writerow([result.directory.name, *result.swept.values(), *values, result.data_order])
    write_atomic(path, file.getvalue())


def summarise(results: Sequence[RunResult]) -> list[Summary]:
    """Gather runs that differ in their seed only."""
    summaries = []
    for label, group in _by_label(results).items():
        values: dict[str, list[float]] = defaultdict(list)
        for result in group:
            for name, value in result.metrics.items():
                values[name].append(value)
        means = {name: Mean(*mean_and_stderr(each), len(each)) for name, each in values.items()}
        summaries.append(Summary(dict(label), len(group), means))
    return summaries


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error, sample deviation / sqrt(n); None from one value, or if not finite."""
    mean = fmean(values)
    return mean, stdev(values) / math.sqrt(len(values)) if len(values) > 1 and math.isfinite(mean) else None


def of_runs(num: int, total: int) -> str:
    """Return ` (2 of 3 runs)`, which follows a mean over fewer runs than there are, and nothing after other means."""
    return "" if num == total else f" ({num} of {total} runs)"


def render(summaries: Sequence[Summary], width: int | None = None) -> str:
    """Write the summaries as a table in plain text, `mean ± stderr`, and of how many runs if some lack the metric.

    A table that is wider than `width` letters is continued below, with the settings again.
    """
    names = _ordered(name for summary in summaries for name in summary.metrics)
    settings = [[key, *(summary.swept[key] for summary in summaries)] for key in summaries[0].swept]
    settings.append(["runs", *(str(summary.num_runs) for summary in summaries)])
    parts: list[list[list[str]]] = []
    for name in names:
        column = [name, *(_cell(summary, name) for summary in summaries)]
        if not parts or (width is not None and _width([*parts[-1], column]) > width):
            parts.append([*settings])
        parts[-1].append(column)
    return "\n\n".join(map(_in_columns, parts or [settings]))


def conclude(directory: Path, results: Sequence[RunResult]) -> None:
    """End a sweep in `directory`: print the table and which settings are apart; say where the files are."""
    print(f"\n{render(summarise(results), get_terminal_size().columns)}\n")
    metric = _compared_metric(results)
    verdicts = compare_settings(results, metric)
    write_comparisons(directory / "comparisons.csv", metric, verdicts)
    if verdicts:
        num = len(verdicts)
        what = (
            "difference with its 95 % interval"
            if num == 1
            else f"differences with their 95 % intervals, all {num} together"
        )
        print(f"{metric}, {what}:")
        print(f"{render_verdicts(_worth_printing(verdicts, results, metric))}\n")
    print(f"every run: {directory / 'results.csv'}; every comparison: {directory / 'comparisons.csv'}")
    try:
        plot(directory / "results.png", results)
    except ImportError:
        print(f"for a plot of the runs: {HINT}")
    else:
        print(f"plot: {directory / 'results.png'}")


def compare_settings(results: Sequence[RunResult], metric: str) -> list[Verdict]:
    """Compare every two settings by `metric`, which all runs have; the runs of a setting differ only in their seed."""
    settings = {}
    for label, group in _by_label(results).items():
        settings[_name(label)] = {
            run.swept.get(SEED, ""): Measured(run.metrics[metric], run.data_order) for run in group
        }
    return compare_all(settings)


def write_comparisons(path: Path, metric: str, verdicts: Sequence[Verdict]) -> None:
    """Write one line a comparison: the two settings, the difference of `metric`, its interval, the verdict."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["first", "second", "figure", "difference", "low", "high", "num", "kind", "verdict"])
    for each in verdicts:
        low, high = ("", "") if each.interval is None else each.interval
        numbers = [each.difference, low, high, each.num]
        writer.writerow([each.first, each.second, metric, *numbers, each.kind, describe(each)])
    write_atomic(path, file.getvalue())


def plot(path: Path, results: Sequence[RunResult]) -> None:
    """Draw validation against tokens read, one line for runs that differ in their seed only; the band is the stderr.

    A point is drawn where all runs of its line have one. Raises ImportError where matplotlib is not installed.
    """
    curve = _compared_metric(results)
    lines = {}
    for label, group in _by_label(results).items():
        points: dict[int, list[float]] = defaultdict(list)
        for result in group:
            for tokens, value in read_curve(result.directory, curve):
                points[tokens].append(value)
        common = sorted(tokens for tokens, values in points.items() if len(values) == len(group))
        lines[_name(label)] = [(float(tokens), *mean_and_stderr(points[tokens])) for tokens in common]
    plot_lines(path, lines, ("tokens", curve))


def read_curve(directory: Path, name: str) -> list[tuple[int, float]]:
    """Return (tokens, value) for every line of a run's metrics.jsonl that has the metric `name`, if it was finite."""
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["tokens"], line[name]) for line in map(json.loads, lines) if line.get(name) is not None]


def _by_label(results: Iterable[RunResult]) -> dict[tuple[tuple[str, str], ...], list[RunResult]]:
    groups: dict[tuple[tuple[str, str], ...], list[RunResult]] = defaultdict(list)
    for result in results:
        groups[tuple((key, value) for key, value in result.swept.items() if key != SEED)].append(result)
    return dict(groups)


def _name(label: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"{key}={value}" for key, value in label) or "all runs"


def _compared_metric(results: Sequence[RunResult]) -> str:
    return next(name for name in CURVES if all(name in result.metrics for result in results))


def _worth_printing(verdicts: Sequence[Verdict], results: Sequence[RunResult], metric: str) -> Sequence[Verdict]:
    """Return all verdicts, or where they are many those about the setting with the lowest mean."""
    if len(verdicts) <= MAX_PRINTED:
        return verdicts
    means = {_name(summary.swept.items()): summary.metrics[metric].value for summary in summarise(results)}
    best = min(means, key=lambda name: (not math.isfinite(means[name]), means[name]))
    return [each for each in verdicts if best in (each.first, each.second)]


def _ordered(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _cell(summary: Summary, name: str) -> str:
    if name not in summary.metrics:
        return ""
    mean = summary.metrics[name]
    error = "" if mean.stderr is None else f" ± {decimal(mean.stderr)}"
    return f"{decimal(mean.value)}{error}{of_runs(mean.num_runs, summary.num_runs)}"


def _in_columns(columns: Sequence[Sequence[str]]) -> str:
    padded = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
    return "\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True))


def _width(columns: Sequence[Sequence[str]]) -> int:
    return max(map(len, _in_columns(columns).splitlines()))
