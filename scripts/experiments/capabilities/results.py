"""The results of the runs by part, task and model, and their differences over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from nested_learning.report import SUMMARY, mean_and_stderr
from nested_learning.report.runs import FinishedRun, final_values, metric_values, read_finished_run, summary_values
from scripts.experiments.capabilities.steps import answer_of
from scripts.experiments.capabilities.trials import PARTS

NONE = "-"


@dataclass(frozen=True)
class Found:
    """The finished runs of one part: `runs[case, subject]`, which differ in their seed only."""

    part: str
    runs: dict[tuple[str, str], list[FinishedRun]]

    @property
    def cases(self) -> list[str]:
        """List the cases of which there is a run, in the order of the trials."""
        return list(dict.fromkeys(case for case, _ in self.runs))

    @property
    def subjects(self) -> list[str]:
        """List the subjects of which there is a run, in the order of the trials."""
        return list(dict.fromkeys(subject for _, subject in self.runs))

    def figures(self, case: str, subject: str, name: str, answer: str | None = None) -> list[float]:
        """Return the figure `name` of the last validation, or of an answer, one a seed; nothing where no run is."""
        if (case, subject) not in self.runs:
            return []
        runs = self.runs[case, subject]
        return final_values(runs, f"val/{name}") if answer is None else metric_values(runs, answer, name)

    def by_seed(self, case: str, subject: str, name: str, answers: Sequence[str] = ()) -> dict[int, float]:
        """Return the figure `name` of the last validation, or its mean over `answers`, by seed."""
        if not answers:
            return {run.config["seed"]: run.summary["final"][f"val/{name}"] for run in self.runs[case, subject]}
        return {
            run.config["seed"]: fmean(run.metric(answer, name)["value"] for answer in answers)
            for run in self.runs[case, subject]
        }

    def rise(self, case: str, subject: str, name: str) -> float:
        """Return by how much the figure `name` rose between the last two validations, on average over the seeds."""
        curves = [run.curve(f"val/{name}") for run in self.runs[case, subject]]
        return fmean(curve[-1].value - curve[-2].value if len(curve) > 1 else 0.0 for curve in curves)

    @property
    def all_runs(self) -> list[FinishedRun]:
        """List every run of the part."""
        return [run for runs in self.runs.values() for run in runs]


def read_part(out: Path, part: str) -> Found:
    """Read the runs of `part` in `out` that are trained and have been asked everything."""
    found: dict[tuple[str, str], list[FinishedRun]] = {}
    for trial in PARTS[part].trials:
        for seed in sorted(int(path.name.rpartition("_")[2]) for path in out.glob(f"{trial.name(0)[:-1]}[0-9]*/")):
            run = out / trial.name(seed)
            if (run / SUMMARY).exists() and all(answer_of(run, question).exists() for question in trial.questions):
                found.setdefault((trial.case, trial.subject), []).append(read_finished_run(run))
    return Found(part, found)


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[float, float | None]:
    """Return the mean difference of figures with the same seed, and its standard error (None from less than two)."""
    pairs = [value - second[seed] for seed, value in first.items() if seed in second]
    return mean_and_stderr(pairs) if pairs else (math.nan, None)


def points(mean: float, error: float | None) -> str:
    """Write a difference of shares."""
    return f"{100 * mean:+.1f} points" + ("" if error is None else f" ± {100 * error:.1f}")


def seeds_of(part: Found) -> str:
    """Say which seeds a part was trained with, and how long."""
    seeds = sorted({run.config["seed"] for run in part.all_runs})
    spent = summary_values(part.all_runs, "cpu_seconds")
    steps = sorted({run.summary["step"] for run in part.all_runs})
    return (
        f"Seeds {', '.join(map(str, seeds))}; {' or '.join(map(str, steps))} steps of "
        f"{part.all_runs[0].config['data']['batch_size']} rows, {min(spent):.0f} to {max(spent):.0f} CPU seconds a run."
    )
