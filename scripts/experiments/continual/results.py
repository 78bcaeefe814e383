"""The results of the runs of this experiment, read from their directories."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nested_learning.report import mean_and_stderr
from scripts.experiments.continual.trials import Run


@dataclass(frozen=True)
class RunResult:
    """A finished run: its summary, its environment, and its evaluation reports by name."""

    run: Run
    summary: dict[str, Any]
    environment: dict[str, Any]
    reports: dict[str, dict[str, Any]]

    def value(self, metric: str, report: str = "continual", part: str = "metrics") -> float:
        """Return a metric of a report."""
        return float(self.reports[report][part][metric]["value"])

    def stderr(self, metric: str) -> float:
        """Return its error over validation rows."""
        return float(self.reports["continual"]["metrics"][metric]["stderr"])

    @property
    def names(self) -> list[str]:
        """Return the domains in the order of training."""
        return [key.split("/")[2] for key in self.reports["continual"]["metrics"] if key.startswith("bpb/0/")]


def read_result(run: Run) -> RunResult | None:
    """Read a run; None if it is not finished or not evaluated."""
    if not (run.directory / "evals/continual.json").exists():
        return None
    reports = {path.stem: _json(path) for path in (run.directory / "evals").glob("*.json")}
    return RunResult(run, _json(run.directory / "summary.json"), _json(run.directory / "environment.json"), reports)


def commits_of(results: Sequence[RunResult]) -> str:
    """Name the commits of the first run and the last, how many there were, and whether the code differed from them."""
    made = sorted(results, key=lambda each: (each.run.directory / "environment.json").stat().st_mtime)
    commits = list(dict.fromkeys(each.environment["git"]["commit"][:9] for each in made))
    shown = commits[0] if len(commits) == 1 else f"{commits[0]} to {commits[-1]} ({len(commits)} of them)"
    differs = any(each.environment["git"]["diff"] for each in results)
    return f"{shown}{', with uncommitted changes' if differs else ''}"


def paired(results: Sequence[RunResult], one: str, other: str, order: str, metric: str) -> list[float]:
    """Return the difference of a metric between `one` and `other`, for each seed that both have."""
    first, second = runs_of(results, one, order), runs_of(results, other, order)
    return [a.value(metric) - b.value(metric) for a in first for b in second if a.run.seed == b.run.seed]


def runs_of(results: Sequence[RunResult], model: str, order: str = "forward") -> list[RunResult]:
    """Return the runs of a model in an order, by seed."""
    runs = [each for each in results if (each.run.model, each.run.order, each.run.again) == (model, order, False)]
    return sorted(runs, key=lambda each: each.run.seed)


def seed_mean(runs: Sequence[RunResult], metric: str) -> tuple[float, float | None]:
    """Return the mean of a metric over seeds, and its standard error."""
    return mean_and_stderr([each.value(metric) for each in runs])


def format_value(metric: tuple[float, float | None]) -> str:
    """Write a mean ± its standard error."""
    mean, error = metric
    return f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Pearson's correlation."""
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    bottom = (sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y)) ** 0.5
    return top / bottom if bottom else float("nan")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
