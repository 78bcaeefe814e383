"""The charts of a run: which metrics are drawn together, as lines over the steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nested_learning.logger.smoothing import Smoothed, half_life
from nested_learning.report.plots import Lines

LOSS, SMOOTHED = "train/loss", "train/loss_ema"
SECONDS = "perf/seconds/"

# chart -> whether it shows the metric with this name
CHARTS: dict[str, Callable[[str], bool]] = {
    "loss": lambda name: name.endswith(("/loss", "_loss", "/loss_ema")),
    "bits per byte": lambda name: name.endswith("bpb"),
    "accuracy": lambda name: name.endswith("accuracy"),
    "learning rate": lambda name: name.startswith("optim/lr"),
    "norms": lambda name: name.startswith("optim/") and "norm" in name,
    "optimizer": lambda name: name.startswith("optim/"),
    "throughput": lambda name: name in ("perf/tokens_per_second", "perf/mfu"),
}


def charts(lines: Sequence[Mapping[str, Any]], total_steps: int) -> dict[str, Lines]:
    """Return the lines of every chart that has any, by its title, from the `lines` of metrics.jsonl.

    A metric is in the first chart that takes it; each metric of memories has its own chart, with a line for each
    memory. The loss is drawn together with its running mean.
    """
    points: dict[str, list[tuple[float, float, None]]] = {}
    for line in lines:
        for name, value in line.items():
            if isinstance(value, int | float) and name not in ("step", "tokens"):
                points.setdefault(name, []).append((float(line["step"]), float(value), None))
    if LOSS in points:
        points[SMOOTHED] = smooth(lines, total_steps)
    by_chart: dict[str, dict[str, Sequence[tuple[float, float, float | None]]]] = {}
    for name, each in points.items():
        title = title_of(name)
        if title is not None:
            by_chart.setdefault(title, {})[name] = each
    return {
        title: by_chart[title] for title in [*CHARTS, *sorted(by_chart.keys() - CHARTS.keys())] if title in by_chart
    }


def title_of(name: str) -> str | None:
    """Return the title of the chart of the metric `name`, None if it is not drawn."""
    if "memory/" in name and not name.startswith("perf/"):
        return f"memory: {name.rpartition('/')[2]}"
    return next((title for title, takes in CHARTS.items() if takes(name)), None)


def smooth(lines: Sequence[Mapping[str, Any]], total_steps: int) -> list[tuple[float, float, None]]:
    """Return the running mean of the training loss, over the step."""
    losses = [line for line in lines if line.get(LOSS) is not None]
    mean = Smoothed(half_life(losses[0]["step"], losses[0]["tokens"], total_steps))
    return [(float(line["step"]), mean.add(line["tokens"], line[LOSS]), None) for line in losses]


def time_split(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds of every phase, and the lost seconds, up to the last line."""
    if not lines:
        return {}
    last = lines[-1]
    spent = {name.removeprefix(SECONDS): value for name, value in last.items() if name.startswith(SECONDS)}
    return spent | {"lost": last["perf/lost_seconds"]}
