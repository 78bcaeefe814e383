"""Reports on disk and on the screen: `evals/<pack>.json`, its rows beside it, and a table."""

import json
import math
from pathlib import Path
from typing import Any

from rich.table import Table

from nested_learning.evals.protocol import Report
from nested_learning.files import write_atomic

FOLDER = "evals"


def write_report(run: Path, name: str, report: Report, about: dict[str, Any]) -> Path:
    """Write `<run>/evals/<name>.json`, and `<name>.jsonl` when there are rows; return the first. Source: ours.

    `about` says what was asked (checkpoint, step, data, memory policy) and comes first. Each file is whole or absent.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    metrics = {key: _finite(metric._asdict()) for key, metric in report.metrics.items()}
    if report.rows:
        lines = "".join(json.dumps(_finite(row), allow_nan=False) + "\n" for row in report.rows)
        write_atomic(folder / f"{name}.jsonl", lines)
    path = folder / f"{name}.json"
    write_atomic(path, json.dumps(about | {"metrics": metrics}, indent=2, allow_nan=False) + "\n")
    return path


def table(name: str, report: Report) -> Table:
    """Lay out the figures of `report` for the terminal. Source: ours."""
    rows = Table("figure", "value", "stderr", "n", title=name, title_justify="left")
    for key, metric in report.metrics.items():
        stderr = "" if metric.stderr is None else f"{metric.stderr:.4f}"
        rows.add_row(key, f"{metric.value:.4f}", stderr, str(metric.n))
    return rows


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    # JSON has no word for a number that is not finite
    bad = {key: None for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)}
    return values | bad
