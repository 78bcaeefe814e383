"""Reports on disk and on the screen: `evals/<pack>.json`, its rows beside it, and a table."""

import csv
import json
import math
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from rich.table import Table

from nested_learning.evals.protocol import Grid, Metric, Report, Samples, difference
from nested_learning.files import write_atomic

FOLDER = "evals"


def write_report(run: Path, name: str, report: Report, about: dict[str, Any], baseline: Report | None = None) -> Path:
    """Write `<run>/evals/<name>.json`, `<name>.jsonl` of its rows and `<name>.csv` of its grids, when there are any;
    return the first.

    `about` says what was asked (checkpoint, step, data, memory policy) and comes first. With a `baseline`, a report of
    the same examples, its metrics come beside, and the differences to them. Each file is whole or absent.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    found = {"metrics": as_json(report.metrics)}
    if baseline is not None:
        found |= {"baseline": as_json(baseline.metrics), "difference": as_json(differences(report, baseline))}
    if report.rows:
        lines = "".join(json.dumps(_finite(row), allow_nan=False) + "\n" for row in report.rows)
        write_atomic(folder / f"{name}.jsonl", lines)
    if report.grids:
        write_atomic(folder / f"{name}.csv", grids_as_csv(report.grids))
    path = folder / f"{name}.json"
    write_atomic(path, json.dumps(about | found, indent=2, allow_nan=False) + "\n")
    return path


def differences(report: Report, baseline: Report) -> dict[str, Metric]:
    """Return `report - baseline` for each metric that both have; errors are paired where samples are."""
    found = {}
    for name in report.figures.keys() & baseline.figures.keys():
        figure, other = report.figures[name], baseline.figures[name]
        if isinstance(figure, Samples) and isinstance(other, Samples):
            found[name] = difference(figure, other)
        else:
            one, two = report.metrics[name], baseline.metrics[name]
            found[name] = Metric(one.value - two.value, None, one.n, one.better)
    return {name: found[name] for name in report.figures if name in found}


def grids_as_csv(grids: Mapping[str, Grid]) -> str:
    """Return a line for each cell: the figure, the row, the column, the value."""
    first = next(iter(grids.values()))
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["figure", first.row_name, first.column_name, "value"])
    for name, grid in grids.items():
        for row, values in zip(grid.rows, grid.values, strict=True):
            lines.writerows([name, row, column, value] for column, value in zip(grid.columns, values, strict=True))
    return text.getvalue()


def as_json(metrics: dict[str, Metric]) -> dict[str, Any]:
    """Return what is written of `metrics`."""
    return {key: _finite(metric._asdict()) for key, metric in metrics.items()}


def table(name: str, metrics: dict[str, Metric]) -> Table:
    """Lay out `metrics` for the terminal."""
    rows = Table("figure", "value", "stderr", "n", "chance", title=name, title_justify="left")
    for key, metric in metrics.items():
        stderr, chance = ("" if value is None else f"{value:.4f}" for value in (metric.stderr, metric.chance))
        rows.add_row(key, f"{metric.value:.4f}", stderr, str(metric.n), chance)
    return rows


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    # JSON has no word for a number that is not finite
    bad = {key: None for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)}
    return values | bad
