"""The page of many runs: tables and plots of all their evaluations, by task."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nested_learning.errors import DataError
from nested_learning.files import write_atomic
from nested_learning.report.evaluations import EvaluatedModel, Point, TaskResults, gather, read_reports
from nested_learning.report.plots import HINT, plot_maps, plot_panels
from nested_learning.report.sweep import of_runs

PAGE = "experiments.md"
# metrics in a table, and heat maps in an image
MAX_COLUMNS, MAX_MAPS = 7, 4
# metrics of the writes of memorizing are only in the files
MEMORY = "memory/"
# differences count if they exceed this many standard errors
NUM_ERRORS = 2
# pack -> the meaning of the numbers in the names of its metrics
AXES = {
    "perplexity": ("position", ""),
    "memory": ("position", ""),
    "continual": ("domains learned", ""),
    "continual_memory": ("domains learned", ""),
    "niah": ("length", "depth, %"),
    "passkey": ("length", "depth, %"),
    "babilong": ("length", ""),
    "recall": ("gap", "pairs"),
}
NUMBER = re.compile(r"-?\d+(\.\d+)?(-\d+)?")

Points = Mapping[str, Point]


class MetricName(NamedTuple):
    """The name of a metric without numbers, and the numbers, such as `accuracy`, (512, 50)."""

    family: str
    numbers: tuple[str, ...]


class Cells(NamedTuple):
    """A heat map, as `plot_maps` takes it."""

    row_name: str
    rows: Sequence[str]
    column_name: str
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]


def write_experiments(folders: Sequence[Path], page: Path, figures: Path) -> Path:
    """Write the page on all runs below `folders`, its plots into the folder `figures`; return the page.

    Raises DataError if nothing was evaluated.
    """
    reports = read_reports(*folders)
    if not reports:
        names = ", ".join(map(str, folders))
        raise DataError(f"{names}: no run below has a report of phase=eval; evaluate one, or give another folder")
    tasks = gather(reports)
    runs = {report.run for report in reports}
    seeds = sorted({report.seed for report in reports})
    lines = [
        "# Experiments",
        "",
        f"{_count(runs, 'run')}, {_count(tasks, 'task')}, seeds: {', '.join(map(str, seeds))}. Written by "
        "`python -m nested_learning.report`; every number is read from the runs' reports.",
        "",
        "Numbers are means over seeds ± their standard error; with one seed, ± the error over its examples. `online`: "
        "memories write while reading, as in training; `frozen`: they do not; `memorize`: the context is memorized "
        "first, with the options shown where they differ from the defaults; what it wrote (metrics `memory/...`) is in "
        "the reports of the runs only. A mean over fewer runs than its row has says so, as in `(2 of 3 runs)`; plots "
        "leave such points out.",
    ]
    figures.mkdir(parents=True, exist_ok=True)
    for number, results in enumerate(tasks):
        first = number == 0 or tasks[number - 1].task.pack != results.task.pack
        lines += ["", f"## {results.task.pack}"] if first else []
        lines += section(results, Drawer(figures, page.parent, f"experiments_{results.task.pack}_{number}"))
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, "\n".join(lines) + "\n")
    return page


class Drawer:
    """Draws into `folder` under names that start with `name`, and returns the Markdown for `page`."""

    def __init__(self, folder: Path, page: Path, name: str) -> None:
        self.folder, self.page, self.name = folder, page, name

    def draw(self, what: str, title: str, plot: Callable[[Path], None]) -> list[str]:
        """Call `plot` with a path; return the lines that show the image, or a hint if matplotlib is missing."""
        path = self.folder / f"{self.name}_{what}.png"
        try:
            plot(path)
        except ImportError:
            return ["", f"For plots: `{HINT}`."]
        return ["", f"![{title}]({Path(os.path.relpath(path, self.page)).as_posix()})"]


def section(results: TaskResults, drawer: Drawer) -> list[str]:
    """Write the tables and plots of a task."""
    lines = ["", f"`{results.task.overrides}`"]
    names = list(dict.fromkeys(name for points in results.points.values() for name in points))
    split = {name: split_numbers(name) for name in names if not name.startswith(MEMORY)}
    plain = [name for name, metric in split.items() if not metric.numbers]
    lines += tables(results.points, {name: name for name in plain}, results.chances)
    lines += gains(results, plain)
    lined, axes = families(split, 1), AXES.get(results.task.pack, ("number", "number"))
    for family, columns in lined.items():
        lines += tables(results.points, columns, results.chances, family)
    panels = {family: model_curves(results.points, columns) for family, columns in lined.items()}
    panels = {family: each for family, each in panels.items() if any(len(points) > 1 for points in each.values())}
    for start in range(0, len(panels), MAX_MAPS):
        part = dict(list(panels.items())[start : start + MAX_MAPS])
        title = f"{results.task.pack}: {', '.join(part)}"
        lines += drawer.draw(f"curves_{start}", title, partial(plot_panels, panels=part, label=axes[0]))
    for family, columns in families(split, 2).items():
        lines += heat_maps(results, family, columns, drawer)
    return lines


def split_numbers(name: str) -> MetricName:
    """Separate the numbers from the name of a metric: `accuracy/512/50` is `accuracy` at 512, 50."""
    parts = name.split("/")
    numbers = tuple(part for part in parts if NUMBER.fullmatch(part))
    words = [part for part in parts if not NUMBER.fullmatch(part)]
    return MetricName("/".join(words), numbers) if words and len(numbers) <= 2 else MetricName(name, ())


def families(split: Mapping[str, MetricName], num: int) -> dict[str, dict[str, str]]:
    """Return the metrics with `num` numbers: family -> numbers, joined by `/` -> name."""
    by_family: dict[str, dict[str, str]] = {}
    for name, metric in split.items():
        if len(metric.numbers) == num:
            by_family.setdefault(metric.family, {})["/".join(metric.numbers)] = name
    return by_family


def tables(
    results: Mapping[EvaluatedModel, Points], columns: Mapping[str, str], chances: Mapping[str, float], title: str = ""
) -> Iterator[str]:
    """Yield tables of the metrics `columns` (heading to name), a row for each model that has any of them."""
    for start in range(0, len(columns), MAX_COLUMNS):
        part = dict(list(columns.items())[start : start + MAX_COLUMNS])
        rows = {model: [points.get(name) for name in part.values()] for model, points in results.items()}
        rows = {model: cells for model, cells in rows.items() if any(cells)}
        yield from ("", *heading([f"{title or 'model'}", "runs", "memory", "seeds", "n", *part]))
        for model, cells in rows.items():
            known = [cell for cell in cells if cell is not None]
            counts = [span([cell.all_runs for cell in known]), span([cell.n for cell in known])]
            yield row(
                [model.model, model.runs, model.policy, *counts, *("" if cell is None else pm(cell) for cell in cells)]
            )
        if any(name in chances for name in part.values()):
            known_chances = [f"{chances[name]:.4g}" if name in chances else "" for name in part.values()]
            yield row(["chance", "", "", "", "", *known_chances])


def gains(results: TaskResults, names: Sequence[str]) -> Iterator[str]:
    """Yield a table of the gains of memorizing; bold if they exceed their errors."""
    columns = [name for name in names if any(name in points for points in results.gains.values())]
    if columns:
        yield from ("", f"memorize - online, on the same examples; bold if at least {NUM_ERRORS} standard errors:")
    for start in range(0, len(columns), MAX_COLUMNS):
        part = columns[start : start + MAX_COLUMNS]
        yield from ("", *heading(["model", "runs", "memory", *part]))
        for model, points in results.gains.items():
            cells = [marked(points[name]) if name in points else "" for name in part]
            yield row([model.model, model.runs, model.policy, *cells])


def model_curves(
    results: Mapping[EvaluatedModel, Points], columns: Mapping[str, str]
) -> dict[str, list[tuple[float, float, float | None]]]:
    """Return a line for each model over the numbers of `columns`; a span such as 32-128 counts as its end."""
    lines = {}
    for model, points in results.items():
        known = [(number_of(at), points[name]) for at, name in columns.items() if _is_drawn(points, name)]
        if known:
            lines[label(model, results)] = [(x, point.value, point.stderr) for x, point in sorted(known)]
    return lines


def maps_of(results: TaskResults, columns: Mapping[str, str]) -> dict[str, Cells]:
    """Return a heat map for each model over the two numbers of `columns`; rows are sorted, the lowest number first."""
    across, down = ([*dict.fromkeys(numbers.split("/")[index] for numbers in columns)] for index in (0, 1))
    across, down = sorted(across, key=number_of), sorted(down, key=number_of)
    maps, axes = {}, AXES.get(results.task.pack, ("number", "number"))
    for model, points in results.points.items():
        if any(_is_drawn(points, name) for name in columns.values()):
            values = [[_value(points, columns.get(f"{x}/{y}")) for x in across] for y in down]
            maps[label(model, results.points)] = Cells(axes[1], down, axes[0], across, values)
    return maps


def heat_maps(results: TaskResults, family: str, columns: Mapping[str, str], drawer: Drawer) -> list[str]:
    """Draw a metric over two numbers, a map for each model, several in an image."""
    maps = maps_of(results, columns)
    lines: list[str] = []
    for start in range(0, len(maps), MAX_MAPS):
        part = dict(list(maps.items())[start : start + MAX_MAPS])
        what = f"{family.replace('/', '_')}_{start}"
        lines += drawer.draw(what, f"{results.task.pack}: {family}", partial(plot_maps, maps=part))
    return lines


def label(model: EvaluatedModel, every: Mapping[EvaluatedModel, Points]) -> str:
    """Return the shortest name that identifies a model in a plot."""
    models = {each.model for each in every}
    alone = len({each.runs for each in every}) == len(models)
    name = model.model if alone else model.runs.rpartition("/")[2]
    return name if len({each.policy for each in every}) == 1 else f"{name}, {model.policy}"


def heading(cells: Sequence[str]) -> list[str]:
    """Write the first two lines of a table."""
    return [row(cells), row(["---"] * len(cells))]


def row(cells: Sequence[str]) -> str:
    """Write a line of a table."""
    return f"| {' | '.join(cells)} |"


def pm(point: Point) -> str:
    """Write a metric with its error, and of how many runs if some lack it."""
    error = "" if point.stderr is None else f" ± {point.stderr:.2g}"
    return f"{point.value:.4g}{error}{of_runs(point.num_runs, point.all_runs)}"


def marked(point: Point) -> str:
    """Write a difference with its sign, in bold if it exceeds its errors."""
    error = "" if point.stderr is None else f" ± {point.stderr:.2g}"
    text = f"{point.value:+.4g}{error}"
    counts = point.stderr is not None and abs(point.value) > NUM_ERRORS * point.stderr
    return f"{f'**{text}**' if counts else text}{of_runs(point.num_runs, point.all_runs)}"


def span(numbers: Sequence[int]) -> str:
    """Write the range of `numbers`."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def number_of(text: str) -> float:
    """Return the number `text`, or the end of a span such as 32-128."""
    return float(text.rpartition("-")[2] if "-" in text[1:] else text)


def _count(items: Collection[object], name: str) -> str:
    return f"{len(items)} {name}{'' if len(items) == 1 else 's'}"


def _value(points: Points, name: str | None) -> float | None:
    return points[name].value if name is not None and _is_drawn(points, name) else None


def _is_drawn(points: Points, name: str) -> bool:
    return name in points and points[name].is_of_all
