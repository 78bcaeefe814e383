"""The results of the runs of this experiment, read from their directories."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nested_learning.report import mean_and_stderr
from scripts.experiments.continual.trials import Run


@dataclass(frozen=True)
class Found:
    """What a run found: its summary, and its reports by name."""

    run: Run
    summary: dict[str, Any]
    environment: dict[str, Any]
    reports: dict[str, dict[str, Any]]

    def value(self, figure: str, report: str = "continual", part: str = "metrics") -> float:
        """Return a figure of a report."""
        return float(self.reports[report][part][figure]["value"])

    def stderr(self, figure: str) -> float:
        """Return its error over validation rows."""
        return float(self.reports["continual"]["metrics"][figure]["stderr"])

    @property
    def names(self) -> list[str]:
        """Name the domains as they were learned."""
        return [key.split("/")[2] for key in self.reports["continual"]["metrics"] if key.startswith("bpb/0/")]


def read(run: Run) -> Found | None:
    """Read a run that is done and was evaluated; None for another."""
    if not (run.directory / "evals/continual.json").exists():
        return None
    reports = {path.stem: _json(path) for path in (run.directory / "evals").glob("*.json")}
    return Found(run, _json(run.directory / "summary.json"), _json(run.directory / "environment.json"), reports)


def commits_of(found: Sequence[Found]) -> str:
    """Name the commits of the first run and the last, how many there were, and whether the code differed from them."""
    made = sorted(found, key=lambda each: (each.run.directory / "environment.json").stat().st_mtime)
    commits = list(dict.fromkeys(each.environment["git"]["commit"][:9] for each in made))
    shown = commits[0] if len(commits) == 1 else f"{commits[0]} to {commits[-1]} ({len(commits)} of them)"
    differs = any(each.environment["git"]["diff"] for each in found)
    return f"{shown}{', with uncommitted changes' if differs else ''}"


def paired(found: Sequence[Found], one: str, other: str, order: str, figure: str) -> list[float]:
    """Return by how much a figure of `one` is above that of `other`, of each seed that both have."""
    first, second = of(found, one, order), of(found, other, order)
    return [a.value(figure) - b.value(figure) for a in first for b in second if a.run.seed == b.run.seed]


def of(found: Sequence[Found], model: str, order: str = "forward") -> list[Found]:
    """Return the runs of a model in an order, by seed."""
    here = [each for each in found if (each.run.model, each.run.order, each.run.again) == (model, order, False)]
    return sorted(here, key=lambda each: each.run.seed)


def over(runs: Sequence[Found], figure: str) -> tuple[float, float | None]:
    """Return the mean of a figure over seeds, and its standard error."""
    return mean_and_stderr([each.value(figure) for each in runs])


def shown(figure: tuple[float, float | None]) -> str:
    """Write a figure."""
    mean, error = figure
    return f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Pearson's correlation."""
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    bottom = (sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y)) ** 0.5
    return top / bottom if bottom else float("nan")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
