"""The results of the runs by part, task and model, and their differences over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from nested_learning.report import SUMMARY, mean_and_stderr
from nested_learning.report.runs import FinishedRun, final_values, metric_values, read_finished_run, summary_values
from scripts.experiments.capabilities.steps import report_of
from scripts.experiments.capabilities.trials import PARTS

NONE = "-"


@dataclass(frozen=True)
class PartResults:
    """The finished runs of one part: `runs[case, model]` is a list with one run a seed."""

    part: str
    runs: dict[tuple[str, str], list[FinishedRun]]

    @property
    def cases(self) -> list[str]:
        """List the cases that have a run, in the order of the trials."""
        return list(dict.fromkeys(case for case, _ in self.runs))

    @property
    def models(self) -> list[str]:
        """List the models that have a run, in the order of the trials."""
        return list(dict.fromkeys(model for _, model in self.runs))

    def values(self, case: str, model: str, name: str, evaluation: str | None = None) -> list[float]:
        """Return the metric `name` of the last validation, or of an evaluation, one value a seed; [] without runs."""
        if (case, model) not in self.runs:
            return []
        runs = self.runs[case, model]
        return final_values(runs, f"val/{name}") if evaluation is None else metric_values(runs, evaluation, name)

    def by_seed(self, case: str, model: str, name: str, evaluations: Sequence[str] = ()) -> dict[int, float]:
        """Return the metric `name` of the last validation, or its mean over `evaluations`, by seed."""
        if not evaluations:
            return {run.config["seed"]: run.summary["final"][f"val/{name}"] for run in self.runs[case, model]}
        return {
            run.config["seed"]: fmean(run.metric(evaluation, name)["value"] for evaluation in evaluations)
            for run in self.runs[case, model]
        }

    def rise(self, case: str, model: str, name: str) -> float:
        """Return how much the metric `name` rose between the last two validations, averaged over the seeds."""
        curves = [run.curve(f"val/{name}") for run in self.runs[case, model]]
        return fmean(curve[-1].value - curve[-2].value if len(curve) > 1 else 0.0 for curve in curves)

    @property
    def all_runs(self) -> list[FinishedRun]:
        """List every run of the part."""
        return [run for runs in self.runs.values() for run in runs]


def read_part(out: Path, part: str) -> PartResults:
    """Read the runs of `part` in `out` that are trained and fully evaluated."""
    runs: dict[tuple[str, str], list[FinishedRun]] = {}
    for trial in PARTS[part].trials:
        for seed in sorted(int(path.name.rpartition("_")[2]) for path in out.glob(f"{trial.name(0)[:-1]}[0-9]*/")):
            run = out / trial.name(seed)
            if (run / SUMMARY).exists() and all(
                report_of(run, evaluation).exists() for evaluation in trial.evaluations
            ):
                runs.setdefault((trial.case, trial.model), []).append(read_finished_run(run))
    return PartResults(part, runs)


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[float, float | None]:
    """Return the mean difference of values with the same seed, and its standard error (None for fewer than two)."""
    pairs = [value - second[seed] for seed, value in first.items() if seed in second]
    return mean_and_stderr(pairs) if pairs else (math.nan, None)


def points(mean: float, error: float | None) -> str:
    """Write a difference of accuracies in percentage points."""
    return f"{100 * mean:+.1f} points" + ("" if error is None else f" ± {100 * error:.1f}")


def seeds_of(part: PartResults) -> str:
    """Describe the seeds, steps and CPU seconds of a part."""
    seeds = sorted({run.config["seed"] for run in part.all_runs})
    spent = summary_values(part.all_runs, "cpu_seconds")
    steps = sorted({run.summary["step"] for run in part.all_runs})
    return (
        f"Seeds {', '.join(map(str, seeds))}; {' or '.join(map(str, steps))} steps of "
        f"{part.all_runs[0].config['data']['batch_size']} rows, {min(spent):.0f} to {max(spent):.0f} CPU seconds a run."
    )
