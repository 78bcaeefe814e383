"""Plots; the only file of the package that imports matplotlib."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HINT = "pip install -e '.[report]'"

# name of a line -> its points: x, mean, standard error (None: not known)
Lines = Mapping[str, Sequence[tuple[float, float, float | None]]]


def plot_lines(path: Path, lines: Lines, labels: tuple[str, str]) -> None:
    """Draw `lines` into the image `path`, their errors as bands; `labels` are those of the axes.

    Raises ImportError if matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    _draw(axes, merge_equal(lines), "")
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.legend(fontsize="small" if len(lines) > 3 else None)
    figure.savefig(path, dpi=150)


def plot_bars(path: Path, bars: Mapping[str, float], label: str) -> None:
    """Draw a bar for each name in `bars`, the first on top; `label` says of what. Raises ImportError as above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.8 + 0.25 * len(bars)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(bars), list(bars.values()))
    axes.invert_yaxis()
    axes.set(xlabel=label)
    figure.savefig(path, dpi=150)


def plot_panels(path: Path, panels: Mapping[str, Lines], label: str) -> None:
    """Draw a panel for each metric in `panels`, one line for each name in it; the band is the standard error.

    There is one legend if it is the same in all panels. `label` names the x axis, which is logarithmic (base 2) unless
    it starts at 0. Raises ImportError if matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    panels = {title: merge_equal(lines) for title, lines in panels.items()}
    figure = Figure(figsize=(3.2 * len(panels), 3), layout="constrained")
    *_, last = panels.values()
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _draw(axes, lines, ".")
        if min(x for points in lines.values() for x, _, _ in points) > 0:
            axes.set_xscale("log", base=2)
        axes.set(xlabel=label, title=title)
        if list(lines) != list(last):
            axes.legend(fontsize="small")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def plot_maps(path: Path, maps: Mapping[str, Any]) -> None:
    """Draw a heat map for each grid (evals/protocol.py) in `maps`. Raises ImportError as above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(maps), 3.2), layout="constrained")
    for axes, (title, grid) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        values = [[math.nan if value is None else value for value in row] for row in grid.values]
        shares = all(0 <= value <= 1 or math.isnan(value) for row in values for value in row)
        image = axes.imshow(values, aspect="auto", cmap="viridis", **({"vmin": 0, "vmax": 1} if shares else {}))
        axes.set_xticks(range(len(grid.columns)), [str(label) for label in grid.columns])
        axes.set_yticks(range(len(grid.rows)), [str(label) for label in grid.rows])
        axes.set(xlabel=grid.column_name, ylabel=grid.row_name, title=title)
        figure.colorbar(image, ax=axes)
    figure.savefig(path, dpi=150)


def merge_equal(lines: Lines) -> Lines:
    """Return `lines` without those that have no point; lines that would hide each other are one, named after all."""
    names: dict[tuple[tuple[float, float, float | None], ...], list[str]] = {}
    for name, points in lines.items():
        if points:
            names.setdefault(tuple(points), []).append(name)
    return {"\n= ".join(each): points for points, each in names.items()}


def _draw(axes: Any, lines: Lines, marker: str) -> None:
    for name, points in lines.items():
        x, means, errors = zip(*points, strict=True)
        # a line of one point is only visible with a marker
        (line,) = axes.plot(x, means, label=name, marker=marker if len(points) > 1 else ".")
        low, high = (
            [mean + sign * (error or 0.0) for mean, error in zip(means, errors, strict=True)] for sign in (-1, 1)
        )
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
