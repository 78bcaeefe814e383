"""The journal of stability: every number and every verdict is computed from the runs of this experiment."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from nested_learning.report import SUMMARY, mean_and_stderr
from nested_learning.report.runs import commit_of, read_json
from nested_learning.report.text import MISSING, table
from scripts.experiments.stability.trials import Case, Setting, run_name

# a setting is harmful if its loss exceeds that of the first by this many standard errors, and by this many nats
NUM_ERRORS, MIN_HARM = 2, 0.05
INCIDENT = "incident.md"


class Outcome:
    """The runs of one setting, one a seed: exit statuses, final losses, gradient norms, evaluations."""

    def __init__(self, setting: Setting, runs: list[Path]) -> None:
        self.setting, self.runs = setting, runs
        self.statuses = [read_json(run.with_name(f"{run.name}.json")) for run in runs]
        self.diverged = sum((run / INCIDENT).exists() for run in runs)
        finals = [read_json(run / SUMMARY)["final"] for run in runs if (run / SUMMARY).exists()]
        self.losses = [final["val/loss"] for final in finals if final["val/loss"] is not None]
        self.norms = [norm for run in runs if (norm := gradient_norms(run)) is not None]

    @property
    def loss(self) -> tuple[float, float | None]:
        """The mean final loss and its standard error; infinite if a run diverged."""
        return (math.inf, None) if self.diverged or not self.losses else mean_and_stderr(self.losses)

    def metric_values(self, evaluation: str, name: str) -> list[float]:
        """Return a metric of an evaluation, of every run that has it."""
        files = [run / "evals" / f"{evaluation}.json" for run in self.runs]
        metrics = [read_json(file)["metrics"].get(name) for file in files if file.exists()]
        return [metric["value"] for metric in metrics if metric is not None and metric["value"] is not None]


def write_journal(cases: Sequence[Case], out: Path, path: Path) -> Path:
    """Write the journal on the runs in `out` to `path`; return it."""
    lines = ["# Stability journal", ""]
    body: list[str] = []
    seeds: set[int] = set()
    commits: set[str] = set()
    spent = 0.0
    for case in cases:
        outcomes = []
        for setting in case.settings:
            finished = [seed for seed in range(100) if (out / f"{run_name(case, setting, seed)}.json").exists()]
            runs = [out / run_name(case, setting, seed) for seed in finished]
            seeds |= set(finished)
            commits |= {
                commit_of(read_json(run / "environment.json")) for run in runs if (run / "environment.json").exists()
            }
            summaries = [read_json(run / SUMMARY) for run in runs if (run / SUMMARY).exists()]
            spent += math.fsum(summary["cpu_seconds"] for summary in summaries)
            if runs:
                outcomes.append(Outcome(setting, runs))
        if outcomes:
            body += section(case, outcomes)
    lines += [
        "Settings that made runs diverge or memories saturate, and the values that cured it. Models have two layers of "
        "width 32 and train for 80 steps of 8 rows of 128 bytes of the Python standard library. At this size settings "
        "break as in large runs, but within seconds; the exact values depend on the size.",
        "",
        "    python -m scripts.experiments.stability.run",
        "",
        f"Commit {', '.join(sorted(commits))}; seeds {', '.join(map(str, sorted(seeds)))}; {spent:.0f} CPU seconds of "
        "training. Numbers are means over the seeds ± their standard error. A setting is harmful if a run diverges, or "
        f"if its loss exceeds that of the first setting, the cure, by more than {NUM_ERRORS} standard errors and by "
        f"{MIN_HARM} nats. What to do when one of your runs diverges: "
        "[how-to.md](how-to.md#survive-a-divergence).",
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines + body), encoding="utf-8")
    return path


def section(case: Case, outcomes: Sequence[Outcome]) -> list[str]:
    """Report on a case."""
    lines = [f"## {case.title}", "", case.why, ""]
    is_memorized = any(len(each.setting.evaluations) > 2 for each in outcomes)
    lines += memorize_rates(outcomes) if is_memorized else training_settings(case, outcomes)
    return [*lines, ""]


def training_settings(case: Case, outcomes: Sequence[Outcome]) -> list[str]:
    """Write the table of training settings, and which of them are harmful."""
    headings = ["", "diverged", "final loss, nats per byte", "largest gradient norm"]
    rows = []
    for each in outcomes:
        cells = [each.setting.name, f"{each.diverged} of {len(each.runs)}", four_digits(each.losses)]
        cells += [four_digits(each.norms)]
        rows.append([*cells, *(four_digits(each.metric_values(pack, name)) for _, pack, name in case.measured)])
    lines = table([*headings, *(heading for heading, _, _ in case.measured)], rows)
    # the first setting is the default
    cure, *others = outcomes
    harmful = [f"**{each.setting.name}**" for each in others if is_harmful(each, cure)]
    if harmful:
        lines += ["", f"Harmful: {', '.join(harmful)}. Cured by: **{cure.setting.name}**."]
    else:
        lines += ["", f"At this size none of these is harmful compared with {cure.setting.name}."]
    return lines + norm_growth(case, outcomes)


def norm_growth(case: Case, outcomes: Sequence[Outcome]) -> list[str]:
    """Report how memories grow beyond the training length, and for which settings the loss suffers there."""
    if not case.measured:
        return []
    (_, perplexity, _), (_, _, far), (_, memory, before), (_, _, after) = case.measured
    growth, losses = {}, {}
    for each in outcomes:
        pairs = list(zip(each.metric_values(memory, after), each.metric_values(memory, before), strict=True))
        if pairs:
            growth[each.setting.name] = mean_and_stderr([late / early for late, early in pairs])[0]
            losses[each.setting.name] = mean_and_stderr(each.metric_values(perplexity, far))
    if not growth:
        return []
    order = sorted(growth, key=lambda name: growth[name])
    least = min(losses, key=lambda name: losses[name][0])
    worse = [
        name
        for name, (mean, error) in losses.items()
        if mean - losses[least][0] > max(MIN_HARM, NUM_ERRORS * math.hypot(error or 0.0, losses[least][1] or 0.0))
    ]
    factors = ", ".join(f"{name}: x {growth[name]:.2f}" for name in order)
    cost = f"The loss there is higher with {', '.join(worse)}." if worse else "The loss there does not rise by "
    cost += "" if worse else f"{MIN_HARM} bits per byte with any of them."
    return ["", f"Growth of the norm beyond the training length: {factors}. Smallest: **{order[0]}**. {cost}"]


def memorize_rates(outcomes: Sequence[Outcome]) -> list[str]:
    """Write the table of learning rates of memorizing: bits per byte above those of memory=online."""
    rates = [_label(evaluation) for evaluation in outcomes[0].setting.evaluations]
    rows, best = [], []
    for each in outcomes:
        cells, changes = [each.setting.name], {}
        for rate in rates:
            files = [run / "evals" / f"perplexity_memorize_{rate}.json" for run in each.runs]
            values = [read_json(file)["difference"]["bpb"]["value"] for file in files if file.exists()]
            values = [value for value in values if value is not None]
            failed = sum(status.get(rate, 0) != 0 for status in each.statuses)
            cells.append(f"not finite in {failed} of {len(each.runs)}" if failed else four_digits(values, signed=True))
            if values and not failed:
                changes[rate] = mean_and_stderr(values)
        rows.append(cells)
        if not changes:
            continue
        lowest = min(changes, key=lambda rate: changes[rate][0])
        safe = [rate for rate, (mean, error) in changes.items() if mean <= MIN_HARM + NUM_ERRORS * (error or 0.0)]
        largest = f"; the largest harmless rate is {safe[-1].replace('lr', '')}" if safe else ""
        best.append(f"- {each.setting.name}: best at memory.lr={lowest.replace('lr', '')}{largest}.")
    return [*table(["bits per byte above online", *(rate.replace("lr", "lr=") for rate in rates)], rows), "", *best]


def is_harmful(outcome: Outcome, cure: Outcome) -> bool:
    """Return whether a setting diverges, or its loss exceeds that of the cure by more than errors explain."""
    if outcome.diverged or not outcome.losses:
        return True
    (mean, error), (least, other) = outcome.loss, cure.loss
    return mean - least > max(MIN_HARM, NUM_ERRORS * math.hypot(error or 0.0, other or 0.0))


def gradient_norms(run: Path) -> float | None:
    """Return the largest gradient norm that a run logged."""
    if not (run / "metrics.jsonl").exists():
        return None
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    norms = [line["optim/grad_norm"] for line in lines if line.get("optim/grad_norm") is not None]
    return max(norms, default=None)


def four_digits(values: Sequence[float], *, signed: bool = False) -> str:
    """Write the mean ± its standard error with four significant digits."""
    if not values:
        return MISSING
    mean, error = mean_and_stderr(list(values))
    sign = "+" if signed else ""
    return f"{mean:{sign}.4g}" if error is None else f"{mean:{sign}.4g} ± {error:.2g}"


def _label(evaluation: Sequence[str]) -> str:
    return next(word.removeprefix("name=") for word in evaluation if word.startswith("name="))
