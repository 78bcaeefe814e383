"""The plots of the report on optimizers; only this file needs matplotlib (`pip install -e '.[report]'`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scripts.experiments.optimizers.problems import Course, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# rule -> value on the horizontal axis -> the best course there
Curves = Mapping[str, Mapping[float, Course]]


def plot_valley(path: Path, courses: Mapping[str, Course], problem: Problem) -> None:
    """Draw the path of each rule through the valley, and its loss over steps."""
    figure, (left, right) = _panels(2)
    theta, r = torch.meshgrid(torch.linspace(-5, 3, 160), torch.linspace(-4.2, 2, 160), indexing="ij")
    _, height, _ = problem(torch.stack([r, theta], -1).reshape(-1, 1, 2), 0)
    left.contour(r, theta, height.view_as(r).log10(), levels=12, colors="grey", linewidths=0.4)
    for name, course in courses.items():
        path_of = course.path[:, 0, 0]
        left.plot(path_of[:, 0], path_of[:, 1], label=name, linewidth=1)
        right.plot(course.losses[:, 0], label=name)
    left.plot(0, 0, "k*")
    left.set(xlabel="r", ylabel="θ", xlim=(-4.2, 2), ylim=(-5, 3))
    right.set(xlabel="steps", ylabel="loss", yscale="log", ylim=(1e-7, 1e3))
    _save(figure, path, right)


def plot_curves(path: Path, panels: Mapping[str, Curves], xlabel: str, ylabel: str, **axes_keys: str) -> None:
    """Draw the score of each rule at each value, with standard errors; one panel for each title."""
    figure, all_axes = _panels(len(panels))
    for axes, (title, curves) in zip(all_axes, panels.items(), strict=True):
        for name, places in curves.items():
            scores, errors = [c.score for c in places.values()], [c.error for c in places.values()]
            axes.errorbar(list(places), scores, errors, label=name, marker="o", markersize=3, capsize=2)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title, **axes_keys)
    _save(figure, path, all_axes[0])


def plot_losses(path: Path, panels: Mapping[str, Mapping[str, Course]], turns: Sequence[int]) -> None:
    """Draw the loss over steps, mean over seeds; one panel for each title, with a line at each of its `turns`."""
    figure, all_axes = _panels(len(panels))
    for axes, (title, courses), count in zip(all_axes, panels.items(), turns, strict=True):
        for name, course in courses.items():
            axes.plot(course.losses.mean(1), label=name)
        steps = len(next(iter(courses.values())).losses)
        for turn in range(1, count):
            axes.axvline(turn * steps / count, color="grey", linewidth=0.4)
        axes.set(xlabel="steps", ylabel="loss of all tasks", title=title, ylim=(0, 1.1))
    _save(figure, path, all_axes[0])


def _panels(number: int) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * number + 0.5, 3.4), layout="constrained")
    return figure, list(figure.subplots(1, number, squeeze=False)[0])


def _save(figure: "Figure", path: Path, legend: "Axes") -> None:
    legend.legend(fontsize="x-small")
    for axes in figure.axes:
        axes.grid(alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
