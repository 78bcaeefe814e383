"""The page of many runs: what was asked of them, in tables and plots, by question; nothing in it is typed."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nested_learning.errors import DataError
from nested_learning.files import write_atomic
from nested_learning.report.evaluations import Point, Question, Subject, gather, read_answers
from nested_learning.report.plots import HINT, plot_maps, plot_panels

PAGE = "experiments.md"
# figures side by side in a table, and heat maps in an image
MAX_COLUMNS, MAX_MAPS = 7, 4
# figures of what study wrote: they are in the files
MEMORY = "memory/"
# differences count from so many of their standard errors on
NUM_ERRORS = 2
# what the numbers in names of figures are
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


class Place(NamedTuple):
    """Where a figure stands: its name without numbers, and these, such as `accuracy`, (512, 50)."""

    family: str
    at: tuple[str, ...]


class Cells(NamedTuple):
    """A heat map, as `plot_maps` takes it."""

    row_name: str
    rows: Sequence[str]
    column_name: str
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]


def write_experiments(folders: Sequence[Path], page: Path, figures: Path) -> Path:
    """Write the page on all runs below `folders`, its plots into the folder `figures`; return the page.

    Raises DataError where nothing was evaluated.
    """
    answers = read_answers(*folders)
    if not answers:
        names = ", ".join(map(str, folders))
        raise DataError(f"{names}: no run below has a report of phase=eval; evaluate one, or give another folder")
    questions = gather(answers)
    runs = {answer.run for answer in answers}
    seeds = sorted({answer.seed for answer in answers})
    lines = [
        "# Experiments",
        "",
        f"{len(runs)} runs, seeds {', '.join(map(str, seeds))}, {len(questions)} questions. Written by "
        "`python -m nested_learning.report`; every number is read from the runs' reports.",
        "",
        "A figure is the mean over runs that differ in their seed only ± its standard error; of one run, ± the error "
        "over its examples. `online`: the architecture's own writes while reading; `frozen`: none; `memorize`: what "
        "may be studied is studied first, with the options that are not as shipped.",
    ]
    figures.mkdir(parents=True, exist_ok=True)
    for number, question in enumerate(questions):
        first = number == 0 or questions[number - 1].asked.pack != question.asked.pack
        lines += ["", f"## {question.asked.pack}"] if first else []
        lines += section(question, Drawer(figures, page.parent, f"experiments_{question.asked.pack}_{number}"))
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, "\n".join(lines) + "\n")
    return page


class Drawer:
    """Draws into `folder` under names that begin with `name`, and says how `page` shows it."""

    def __init__(self, folder: Path, page: Path, name: str) -> None:
        self.folder, self.page, self.name = folder, page, name

    def draw(self, what: str, title: str, plot: Callable[[Path], None]) -> list[str]:
        """Have `plot` draw; return the lines that show it, or what is missing to draw."""
        path = self.folder / f"{self.name}_{what}.png"
        try:
            plot(path)
        except ImportError:
            return ["", f"For plots: `{HINT}`."]
        return ["", f"![{title}]({Path(os.path.relpath(path, self.page)).as_posix()})"]


def section(question: Question, drawer: Drawer) -> list[str]:
    """Write all that was found on a question."""
    lines = ["", f"`{question.asked.words}`"]
    names = list(dict.fromkeys(name for points in question.found.values() for name in points))
    places = {name: place_of(name) for name in names if not name.startswith(MEMORY)}
    plain = [name for name, place in places.items() if not place.at]
    lines += tables(question.found, {name: name for name in plain}, question.chances)
    lines += gains(question, plain)
    lined, axes = families(places, 1), AXES.get(question.asked.pack, ("number", "number"))
    for family, columns in lined.items():
        lines += tables(question.found, columns, question.chances, family)
    panels = {family: curves(question.found, columns) for family, columns in lined.items()}
    panels = {family: each for family, each in panels.items() if any(len(points) > 1 for points in each.values())}
    for start in range(0, len(panels), MAX_MAPS):
        some = dict(list(panels.items())[start : start + MAX_MAPS])
        title = f"{question.asked.pack}: {', '.join(some)}"
        lines += drawer.draw(f"curves_{start}", title, partial(plot_panels, panels=some, label=axes[0]))
    for family, columns in families(places, 2).items():
        lines += heat_maps(question, family, columns, drawer)
    return lines


def place_of(name: str) -> Place:
    """Take the numbers out of the name of a figure: `accuracy/512/50` is `accuracy` at 512, 50."""
    parts = name.split("/")
    numbers = tuple(part for part in parts if NUMBER.fullmatch(part))
    words = [part for part in parts if not NUMBER.fullmatch(part)]
    return Place("/".join(words), numbers) if words and len(numbers) <= 2 else Place(name, ())


def families(places: Mapping[str, Place], num: int) -> dict[str, dict[str, str]]:
    """Return the figures at `num` numbers by family, each under these numbers."""
    found: dict[str, dict[str, str]] = {}
    for name, place in places.items():
        if len(place.at) == num:
            found.setdefault(place.family, {})["/".join(place.at)] = name
    return found


def tables(
    found: Mapping[Subject, Points], columns: Mapping[str, str], chances: Mapping[str, float], title: str = ""
) -> Iterator[str]:
    """Yield tables of the figures `columns` (heading to name), a row for each subject that has any of them."""
    for start in range(0, len(columns), MAX_COLUMNS):
        some = dict(list(columns.items())[start : start + MAX_COLUMNS])
        rows = {who: [points.get(name) for name in some.values()] for who, points in found.items()}
        rows = {who: cells for who, cells in rows.items() if any(cells)}
        yield from ("", *heading([f"{title or 'model'}", "runs", "memory", "seeds", "n", *some]))
        for who, cells in rows.items():
            known = [cell for cell in cells if cell is not None]
            counts = [span([cell.num_runs for cell in known]), span([cell.n for cell in known])]
            yield row([who.model, who.runs, who.policy, *counts, *("" if cell is None else pm(cell) for cell in cells)])
        if any(name in chances for name in some.values()):
            known_chances = [f"{chances[name]:.4g}" if name in chances else "" for name in some.values()]
            yield row(["chance", "", "", "", "", *known_chances])


def gains(question: Question, names: Sequence[str]) -> Iterator[str]:
    """Yield a table of what memorizing changed; bold where it is beyond its errors."""
    columns = [name for name in names if any(name in points for points in question.gains.values())][:MAX_COLUMNS]
    if not columns:
        return
    yield from ("", f"memorize - online, on the same examples; bold from {NUM_ERRORS} standard errors on:", "")
    yield from heading(["model", "runs", "memory", *columns])
    for who, points in question.gains.items():
        cells = [marked(points[name]) if name in points else "" for name in columns]
        yield row([who.model, who.runs, who.policy, *cells])


def curves(
    found: Mapping[Subject, Points], columns: Mapping[str, str]
) -> dict[str, list[tuple[float, float, float | None]]]:
    """Return a line for each subject over the numbers of `columns`; of a stretch such as 32-128 its end."""
    lines = {}
    for who, points in found.items():
        known = [(number_of(at), points[name]) for at, name in columns.items() if name in points]
        if known:
            lines[label(who, found)] = [(x, point.value, point.stderr) for x, point in sorted(known)]
    return lines


def heat_maps(question: Question, family: str, columns: Mapping[str, str], drawer: Drawer) -> list[str]:
    """Draw a figure over two numbers, a map for each subject, some in an image."""
    across, down = ([*dict.fromkeys(at.split("/")[place] for at in columns)] for place in (0, 1))
    across, down = sorted(across, key=number_of), sorted(down, key=number_of)
    maps, axes = {}, AXES.get(question.asked.pack, ("number", "number"))
    for who, points in question.found.items():
        if any(name in points for name in columns.values()):
            values = [[_value(points, columns.get(f"{x}/{y}")) for x in across] for y in down]
            maps[label(who, question.found)] = Cells(axes[1], down, axes[0], across, values)
    lines: list[str] = []
    for start in range(0, len(maps), MAX_MAPS):
        some = dict(list(maps.items())[start : start + MAX_MAPS])
        what = f"{family.replace('/', '_')}_{start}"
        lines += drawer.draw(what, f"{question.asked.pack}: {family}", partial(plot_maps, maps=some))
    return lines


def label(who: Subject, found: Mapping[Subject, Points]) -> str:
    """Name a subject as shortly as sets it apart in a plot."""
    models = {each.model for each in found}
    alone = len({each.runs for each in found}) == len(models)
    name = who.model if alone else who.runs.rpartition("/")[2]
    return name if len({each.policy for each in found}) == 1 else f"{name}, {who.policy}"


def heading(cells: Sequence[str]) -> list[str]:
    """Write the first two lines of a table."""
    return [row(cells), row(["---"] * len(cells))]


def row(cells: Sequence[str]) -> str:
    """Write a line of a table."""
    return f"| {' | '.join(cells)} |"


def pm(point: Point) -> str:
    """Write a figure with its error."""
    return f"{point.value:.4g}" if point.stderr is None else f"{point.value:.4g} ± {point.stderr:.2g}"


def marked(point: Point) -> str:
    """Write a difference with its sign, bold where it is beyond its errors."""
    error = "" if point.stderr is None else f" ± {point.stderr:.2g}"
    text = f"{point.value:+.4g}{error}"
    return f"**{text}**" if point.stderr is not None and abs(point.value) > NUM_ERRORS * point.stderr else text


def span(numbers: Sequence[int]) -> str:
    """Write the range of `numbers`."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def number_of(text: str) -> float:
    """Return the number `text`, of a stretch such as 32-128 its end."""
    return float(text.rpartition("-")[2] if "-" in text[1:] else text)


def _value(points: Points, name: str | None) -> float | None:
    return points[name].value if name is not None and name in points else None
