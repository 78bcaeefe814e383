"""The page of one run: its configuration, final metrics, time by phase, and plots of all logged metrics."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nested_learning.checkpoint import CONFIG, read_config
from nested_learning.errors import DataError
from nested_learning.files import write_atomic
from nested_learning.logger.build import METRICS
from nested_learning.logger.jsonl import read_lines
from nested_learning.logger.words import decimal
from nested_learning.report.charts import charts, time_split
from nested_learning.report.plots import HINT, plot_bars, plot_lines

FOLDER, PAGE = "report", "README.md"
# of the directory of a run
SUMMARY, INCIDENT, SAMPLES = "summary.json", "incident.md", "samples.jsonl"


def write_page(run: Path) -> Path:
    """Write `<run>/report/README.md` and its plots; return the page. The run may still be training.

    Raises DataError for a directory that is not a run, or has no log yet.
    """
    lines = read_lines(run / METRICS)
    if not (run / CONFIG).is_file() or not lines:
        raise DataError(f"{run}: no log found (no {CONFIG} and {METRICS}); give the directory of a run")
    config = read_config(run)
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    sections = [f"# {run.name}", "", *_about(run, config, lines[-1]), "", *_time(time_split(lines))]
    try:
        sections += _plots(folder, charts(lines, config["steps"]), time_split(lines))
    except ImportError:
        sections += ["", f"For plots: `{HINT}`."]
    sections += _samples(read_lines(run / SAMPLES))
    write_atomic(folder / PAGE, "\n".join(sections) + "\n")
    return folder / PAGE


def _about(run: Path, config: Mapping[str, Any], last: Mapping[str, Any]) -> list[str]:
    names = {group: config[group]["name"] for group in ("model", "optim", "data", "objective")}
    choices = " ".join(f"{group}={name}" for group, name in names.items())
    rows = [f"`{choices} seed={config['seed']}`, step {last['step']} of {config['steps']}, {last['tokens']:,} tokens."]
    if (run / INCIDENT).exists():
        rows.append(f"Steps that were not finite: [{INCIDENT}](../{INCIDENT}).")
    if not (run / SUMMARY).exists():
        return [*rows, "The run is not finished."]
    summary = json.loads((run / SUMMARY).read_text(encoding="utf-8"))
    rows += ["", "| metric | final | at the best validation |", "| --- | --- | --- |"]
    for name, value in summary["final"].items():
        if name.startswith(("train/", "val/")):
            best = summary["best"].get(name)
            rows.append(f"| `{name}` | {_metric(value)} | {_metric(best)} |")
    spent = ("parameters", "tokens_per_second", "wall_seconds", "goodput", "peak_memory_bytes")
    return [*rows, "", *(f"- `{name}`: {_amount(summary[name])}" for name in spent)]


def _time(split: Mapping[str, float]) -> list[str]:
    wall = sum(split.values())
    rows = ["## Time by phase", "", "| phase | seconds | fraction |", "| --- | --- | --- |"]
    rows += [f"| {name} | {seconds:.2f} | {seconds / wall:.1%} |" for name, seconds in split.items()]
    return [*rows, f"| wall | {wall:.2f} | |", ""]


def _plots(folder: Path, charts_of: Mapping[str, Any], split: Mapping[str, float]) -> list[str]:
    plot_bars(folder / "time.png", split, "seconds")
    shown = ["![time](time.png)", "", "## Metrics"]
    for title, lines in charts_of.items():
        name = f"{title.replace(': ', '_').replace(' ', '_')}.png"
        plot_lines(folder / name, lines, ("step", title))
        shown += ["", f"![{title}]({name})"]
    return shown


def _samples(lines: list[dict[str, Any]]) -> list[str]:
    rows = ["", "## Samples"] if lines else []
    for line in lines:
        if line["step"] == lines[-1]["step"]:
            text = "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in line["text"])
            quoted = "\n".join(f"    {each}" for each in f"{line['prompt']}{text}".split("\n"))
            rows += ["", f"Step {line['step']}, {line['kind']}:", "", quoted]
    return rows


def _metric(value: float | None) -> str:
    return "" if value is None else decimal(value)


def _amount(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
