"""Reports as files and on the terminal: `evals/<pack>.json`, its records in `<pack>.jsonl`, and a table."""

import csv
import json
import math
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from rich.table import Table

from nested_learning.evals.metrics import Metric, Samples, difference
from nested_learning.evals.protocol import Grid, Report
from nested_learning.files import write_atomic
from nested_learning.logger.words import decimal

FOLDER = "evals"


def write_report(run: Path, name: str, report: Report, about: dict[str, Any], baseline: Report | None = None) -> Path:
    """Write `<run>/evals/<name>.json` and, where there are any, records to `<name>.jsonl` and grids to `<name>.csv`.

    `about` identifies the evaluation (checkpoint, step, data, memory policy) and comes first. With a `baseline`, a
    report on the same examples, the file also has the metrics of the baseline and the differences to them. Each file is
    written whole or not at all. Returns the path of the JSON file.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    results = {"metrics": as_json(report.metrics)}
    if baseline is not None:
        results |= {"baseline": as_json(baseline.metrics), "difference": as_json(differences(report, baseline))}
    if report.records:
        lines = "".join(json.dumps(_finite(record), allow_nan=False) + "\n" for record in report.records)
        write_atomic(folder / f"{name}.jsonl", lines)
    if report.grids:
        write_atomic(folder / f"{name}.csv", grids_as_csv(report.grids))
    path = folder / f"{name}.json"
    write_atomic(path, json.dumps(about | results, indent=2, allow_nan=False) + "\n")
    return path


def differences(report: Report, baseline: Report) -> dict[str, Metric]:
    """Return `report - baseline` for each metric that both have, with paired errors where both have samples."""
    found = {}
    for name in report.samples:
        if name not in baseline.samples:
            continue
        one, other = report.samples[name], baseline.samples[name]
        if isinstance(one, Samples) and isinstance(other, Samples):
            found[name] = difference(one, other)
        else:
            first, second = report.metrics[name], baseline.metrics[name]
            found[name] = Metric(first.value - second.value, None, first.n, first.better)
    return found


def grids_as_csv(grids: Mapping[str, Grid]) -> str:
    """Return a line for each cell: the metric (column `figure`), the row, the column, the value."""
    first = next(iter(grids.values()))
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["figure", first.row_name, first.column_name, "value"])
    for name, grid in grids.items():
        for row, values in zip(grid.rows, grid.values, strict=True):
            lines.writerows([name, row, column, value] for column, value in zip(grid.columns, values, strict=True))
    return text.getvalue()


def as_json(metrics: dict[str, Metric]) -> dict[str, Any]:
    """Return `metrics` as JSON."""
    return {key: _finite(metric._asdict()) for key, metric in metrics.items()}


def table(name: str, metrics: dict[str, Metric]) -> Table:
    """Return `metrics` as a table for the terminal, without a column in which nothing stands."""
    heads = ("metric", "value", "stderr", "n", "chance")
    rows = [
        (key, decimal(each.value), _optional(each.stderr), str(each.n), _optional(each.chance))
        for key, each in metrics.items()
    ]
    columns = [number for number in range(len(heads)) if any(row[number] for row in rows)]
    lines = Table(title=name, title_justify="left")
    for number in columns:
        # a name that is cut could be that of another metric
        lines.add_column(heads[number], overflow="fold", no_wrap=number > 0)
    for row in rows:
        lines.add_row(*(row[number] for number in columns))
    return lines


def _optional(value: float | None) -> str:
    return "" if value is None else decimal(value)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    # JSON has no infinity and no NaN
    bad = {key: None for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)}
    return values | bad
