"""The plots of the report on capabilities; they need matplotlib (`pip install -e '.[report]'`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nested_learning.report import mean_and_stderr
from scripts.experiments.capabilities.trials import MODELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {model: f"C{index}" for index, model in enumerate(MODELS)}
# values by row and column, one a seed
Cells = Mapping[tuple[str, str], Sequence[float]]


def plot_shares(path: Path, panels: Mapping[str, Cells], rows: Sequence[str], columns: Sequence[str]) -> None:
    """Draw one table of colours for each of `panels`: mean shares of words right, in percent."""
    figure, axes = _open(len(panels), 0.6 * len(columns) + 1.6, 0.4 * len(rows) + 1.2)
    for place, (title, cells) in zip(axes, panels.items(), strict=True):
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                if (row, column) in cells:
                    mean, _ = mean_and_stderr(cells[row, column])
                    # from white to green
                    colour = (1 - 0.7 * mean, 1 - 0.25 * mean, 1 - 0.6 * mean)
                    place.fill([x - 0.5, x + 0.5, x + 0.5, x - 0.5], [y - 0.5, y - 0.5, y + 0.5, y + 0.5], color=colour)
                    place.text(x, y, f"{100 * mean:.0f}", ha="center", va="center", fontsize="small")
        place.set(title=title, xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        place.set_xticks(range(len(columns)), list(columns), rotation=30, ha="right", fontsize="small")
        place.set_yticks(range(len(rows)), list(rows), fontsize="small")
    _save(figure, path)


def plot_bars(path: Path, cells: Cells, columns: Sequence[str], chance: Mapping[str, float]) -> None:
    """Draw the accuracy of each model (a row) at each task (a column), and chance."""
    figure, (axes,) = _open(1, 1.5 * len(columns) + 1.5, 3.4)
    models = list(dict.fromkeys(row for row, _ in cells))
    width = 0.8 / len(models)
    for index, model in enumerate(models):
        places = [x for x, column in enumerate(columns) if (model, column) in cells]
        pairs = [mean_and_stderr(cells[model, columns[x]]) for x in places]
        middles = [x - 0.4 + (index + 0.5) * width for x in places]
        errors = [error or 0.0 for _, error in pairs]
        axes.bar(middles, [mean for mean, _ in pairs], width, yerr=errors, color=COLOURS[model], label=model)
    for x, column in enumerate(columns):
        axes.plot([x - 0.45, x + 0.45], [chance[column]] * 2, color="black", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(columns)), [column.replace("_", "\n") for column in columns], fontsize="small")
    axes.set(ylabel="accuracy (dotted: chance)", ylim=(0, 1.03))
    axes.legend(fontsize="small", ncols=2)
    _save(figure, path)


def plot_pairs(path: Path, panels: Mapping[str, Cells], pairs: Sequence[int], trained: int, chance: float) -> None:
    """Draw the accuracy of each model (a row) against the number of pairs (a column), one panel for each state."""
    figure, axes = _open(len(panels), 3.6, 3.4)
    for place, (title, cells) in zip(axes, panels.items(), strict=True):
        for model in dict.fromkeys(row for row, _ in cells):
            points = [mean_and_stderr(cells[model, str(number)]) for number in pairs]
            means, errors = [mean for mean, _ in points], [error or 0.0 for _, error in points]
            place.errorbar(pairs, means, errors, color=COLOURS[model], label=model, marker="o", markersize=4, capsize=2)
        place.axhline(chance, color="grey", linestyle=":", linewidth=1)
        place.axvline(trained, color="grey", linestyle="--", linewidth=1)
        place.set_xscale("log", base=2)
        place.set_xticks(list(pairs), [str(number) for number in pairs])
        place.set(title=title, xlabel="pairs (dashed: trained)", ylabel="accuracy", ylim=(0, 1.03))
        place.grid(alpha=0.25)
    axes[0].legend(fontsize="small")
    _save(figure, path)


def plot_differences(path: Path, differences: Mapping[str, tuple[float, float | None]], label: str) -> None:
    """Draw the mean differences, with their standard errors, around zero."""
    figure, (axes,) = _open(1, 5.5, 0.35 * len(differences) + 1.0)
    names, means = list(differences), [mean for mean, _ in differences.values()]
    errors = [error or 0.0 for _, error in differences.values()]
    axes.barh(names, means, xerr=errors, color="C0", capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set(xlabel=label)
    axes.grid(alpha=0.25)
    _save(figure, path)


def _open(panels: int, width: float, height: float) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * panels, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _save(figure: "Figure", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
