"""The plots of this report; only this file needs matplotlib (`pip install -e '.[report]'`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nested_learning.report import mean_and_stderr
from nested_learning.report.runs import metric_values
from scripts.experiments.first_run.results import ORDER, Models, mean_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {model: f"C{index}" for index, model in enumerate(ORDER)}


def plot_training(path: Path, models: Models, figure_name: str, label: str) -> None:
    """Draw a validation metric against tokens and against CPU seconds, without the first tenth of the run."""
    figure, (left, right) = _panels(2)
    for model, runs in models.items():
        curve = mean_curve(runs, figure_name)
        curve = [(point, error) for point, error in curve if point.tokens >= 0.1 * curve[-1][0].tokens]
        values, errors = [point.value for point, _ in curve], [error for _, error in curve]
        _line(left, model, [point.tokens / 1e6 for point, _ in curve], values, errors)
        _line(right, model, [point.cpu_seconds for point, _ in curve], values, errors)
    left.set(xlabel="million tokens", ylabel=label)
    right.set(xlabel="CPU seconds", ylabel=label)
    _save(figure, path, left)


def plot_positions(path: Path, models: Models, buckets: Sequence[tuple[int, int]], trained: int) -> None:
    """Draw bits per byte by position, each bucket at its middle, and a line at the training length."""
    figure, (axes,) = _panels(1)
    middles = [(low + high) / 2 for low, high in buckets]
    for model, runs in models.items():
        _means(axes, model, middles, [metric_values(runs, "perplexity", f"bpb/{low}-{high}") for low, high in buckets])
    axes.axvline(trained, color="grey", linestyle="--", linewidth=1)
    axes.annotate(" training length", (trained, 0.97), xycoords=("data", "axes fraction"), va="top", color="grey")
    axes.set_xscale("log", base=2)
    axes.set_xticks(middles, [f"{low}-{high}" for low, high in buckets])
    axes.set(xlabel="position, tokens", ylabel="bits per byte")
    _save(figure, path, axes)


def plot_recall(path: Path, models: Models, gaps: Sequence[int], chance: float) -> None:
    """Draw recall against the gap after training, and against CPU seconds during training."""
    figure, (left, right) = _panels(2)
    for model, runs in models.items():
        _means(left, model, gaps, [metric_values(runs, f"gap_{gap}", "accuracy") for gap in gaps])
        curve = mean_curve(runs, "val/accuracy")
        seconds = [point.cpu_seconds for point, _ in curve]
        _line(right, model, seconds, [point.value for point, _ in curve], [error for _, error in curve])
    for axes in (left, right):
        axes.axhline(chance, color="grey", linestyle=":", linewidth=1)
        axes.set(ylabel="accuracy", ylim=(0, 1.03))
    left.set_xscale("log", base=2)
    left.set_xticks(list(gaps), [str(gap) for gap in gaps])
    left.set(xlabel="gap, tokens")
    right.set(xlabel="CPU seconds")
    _save(figure, path, left)


def plot_parity(path: Path, models: Models, lengths: Mapping[str, str]) -> None:
    """Draw sequence accuracy for each bucket of lengths: `lengths` maps evaluations to labels."""
    figure, (axes,) = _panels(1)
    places = list(range(len(lengths)))
    for model, runs in models.items():
        _means(axes, model, places, [metric_values(runs, name, "sequence_accuracy") for name in lengths])
    axes.set_xticks(places, list(lengths.values()))
    axes.set(xlabel="length, bits", ylabel="sequence accuracy", ylim=(-0.02, 1.03))
    _save(figure, path, axes)


def _panels(number: int) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * number + 0.5, 3.4), layout="constrained")
    return figure, list(figure.subplots(1, number, squeeze=False)[0])


def _line(axes: "Axes", model: str, x: Sequence[float], means: Sequence[float], errors: Sequence[float]) -> None:
    """Draw a line, and its standard error as a band."""
    axes.plot(x, means, color=COLOURS[model], label=model)
    low, high = ([mean + sign * error for mean, error in zip(means, errors, strict=True)] for sign in (-1, 1))
    axes.fill_between(x, low, high, color=COLOURS[model], alpha=0.2, linewidth=0)


def _means(axes: "Axes", model: str, x: Sequence[float], values: Sequence[Sequence[float]]) -> None:
    """Draw the mean over seeds at each x, with its standard error."""
    pairs = [mean_and_stderr(each) for each in values]
    means, errors = [mean for mean, _ in pairs], [error or 0.0 for _, error in pairs]
    axes.errorbar(x, means, errors, color=COLOURS[model], label=model, marker="o", markersize=4, capsize=2)


def _save(figure: "Figure", path: Path, legend: "Axes") -> None:
    legend.legend(fontsize="small")
    for axes in figure.axes:
        axes.grid(alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
