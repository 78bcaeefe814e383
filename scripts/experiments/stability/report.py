"""The journal of stability: every number and every verdict is computed from the runs of this experiment."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nested_learning.report import mean_and_stderr
from scripts.experiments.ablations.report import commit_of, read_json

if TYPE_CHECKING:
    from scripts.experiments.stability.run import Case, Setting

# a setting does harm when its loss is above the best by so many standard errors of the difference, and by so much
NUM_ERRORS, LEAST = 2, 0.05
INCIDENT = "incident.md"
Name = Callable[[Any, Any, int], str]


class Trial:
    """What came of one setting: of each seed its run, whether it ended, its last figures, what it was asked."""

    def __init__(self, setting: "Setting", runs: list[Path]) -> None:
        self.setting, self.runs = setting, runs
        self.notes = [json.loads(run.with_name(f"{run.name}.json").read_text(encoding="utf-8")) for run in runs]
        self.diverged = sum((run / INCIDENT).exists() for run in runs)
        finals = [read_json(run / "summary.json")["final"] for run in runs if (run / "summary.json").exists()]
        self.losses = [final["val/loss"] for final in finals if final["val/loss"] is not None]
        self.norms = [norm for run in runs if (norm := gradient_norms(run)) is not None]

    @property
    def loss(self) -> tuple[float, float | None]:
        """The mean loss at the end and its error; infinite where a run diverged."""
        return (math.inf, None) if self.diverged or not self.losses else mean_and_stderr(self.losses)

    def asked(self, pack: str, figure: str) -> list[float]:
        """Return a figure of a report, of every run that has it."""
        files = [run / "evals" / f"{pack}.json" for run in self.runs]
        found = [read_json(file)["metrics"].get(figure) for file in files if file.exists()]
        return [each["value"] for each in found if each is not None and each["value"] is not None]


def write_journal(cases: Sequence["Case"], out: Path, path: Path, name: Name) -> Path:
    """Write the journal on the runs in `out` to `path`; return it."""
    lines = ["# Stability journal", ""]
    body: list[str] = []
    seeds: set[int] = set()
    commits: set[str] = set()
    spent = 0.0
    for case in cases:
        trials = []
        for setting in case.settings:
            there = [seed for seed in range(100) if (out / f"{name(case, setting, seed)}.json").exists()]
            runs = [out / name(case, setting, seed) for seed in there]
            seeds |= set(there)
            commits |= {commit_of(run) for run in runs if (run / "environment.json").exists()}
            summaries = [read_json(run / "summary.json") for run in runs if (run / "summary.json").exists()]
            spent += math.fsum(summary["cpu_seconds"] for summary in summaries)
            if runs:
                trials.append(Trial(setting, runs))
        if trials:
            body += section(case, trials)
    lines += [
        "What made runs diverge or memories saturate, and what cured it: models of two layers of width 32, 80 steps of "
        "8 rows of 128 bytes of the Python standard library. At this size settings break as they do in large runs, and "
        "in seconds; where exactly depends on the size.",
        "",
        "    python -m scripts.experiments.stability.run",
        "",
        f"Commit {', '.join(sorted(commits))}; seeds {', '.join(map(str, sorted(seeds)))}; {spent:.0f} CPU seconds of "
        "training. Figures are means over the seeds ± their standard error. A setting does harm where a run diverges, "
        f"or its loss is above that of the first, the cure, by more than {NUM_ERRORS} standard errors and {LEAST} "
        "nats. What to do when a "
        "run of yours diverges is in [how-to.md](how-to.md#survive-a-divergence).",
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines + body), encoding="utf-8")
    return path


def section(case: "Case", trials: Sequence[Trial]) -> list[str]:
    """Write what came of a case."""
    lines = [f"## {case.title}", "", case.why, ""]
    lines += memorized(trials) if any(len(trial.setting.questions) > 2 for trial in trials) else trained(case, trials)
    return [*lines, ""]


def trained(case: "Case", trials: Sequence[Trial]) -> list[str]:
    """Write the table of settings of training, and which is to be used."""
    headings = ["", "diverged", "nats per byte at the end", "largest gradient norm"]
    lines = _table([*headings, *(heading for heading, _, _ in case.measured)])
    for trial in trials:
        losses = pm(trial.losses) if trial.losses else "-"
        cells = [trial.setting.name, f"{trial.diverged} of {len(trial.runs)}", losses, pm(trial.norms)]
        cells += [pm(trial.asked(pack, figure)) for _, pack, figure in case.measured]
        lines.append(_row(cells))
    # the first is as shipped
    cure, *others = trials
    harmful = [f"**{trial.setting.name}**" for trial in others if does_harm(trial, cure)]
    if harmful:
        lines += ["", f"Does harm: {', '.join(harmful)}. Cured by: **{cure.setting.name}**."]
    else:
        lines += ["", f"At this size none of these does harm to training beside {cure.setting.name}."]
    return lines + grown(case, trials)


def grown(case: "Case", trials: Sequence[Trial]) -> list[str]:
    """Say how memories grow beyond the length of training, and whose reads suffer from it."""
    if not case.measured:
        return []
    (_, reads, _), (_, _, far), (_, looks, before), (_, _, after) = case.measured
    growth, losses = {}, {}
    for trial in trials:
        pairs = list(zip(trial.asked(looks, after), trial.asked(looks, before), strict=True))
        if pairs:
            growth[trial.setting.name] = mean_and_stderr([late / early for late, early in pairs])[0]
            losses[trial.setting.name] = mean_and_stderr(trial.asked(reads, far))
    if not growth:
        return []
    order = sorted(growth, key=lambda name: growth[name])
    least = min(losses, key=lambda name: losses[name][0])
    suffers = [
        name
        for name, (mean, error) in losses.items()
        if mean - losses[least][0] > max(LEAST, NUM_ERRORS * math.hypot(error or 0.0, losses[least][1] or 0.0))
    ]
    told = ", ".join(f"{name}: x {growth[name]:.2f}" for name in order)
    return [
        "",
        f"Growth of the norm beyond the length of training: {told}. Most bounded: **{order[0]}**. "
        + (
            f"It costs there: {', '.join(suffers)}." if suffers else f"It costs none of them {LEAST} bits per byte yet."
        ),
    ]


def memorized(trials: Sequence[Trial]) -> list[str]:
    """Write the table of rates of study: bits per byte above those without it."""
    rates = [_label(question) for question in trials[0].setting.questions]
    lines = _table(["bits per byte above online", *(rate.replace("lr", "lr=") for rate in rates)])
    best = []
    for trial in trials:
        cells, gains = [trial.setting.name], {}
        for rate in rates:
            files = [run / "evals" / f"perplexity_memorize_{rate}.json" for run in trial.runs]
            found = [read_json(file)["difference"]["bpb"]["value"] for file in files if file.exists()]
            found = [value for value in found if value is not None]
            failed = sum(note.get(rate, 0) != 0 for note in trial.notes)
            cells.append(f"not finite in {failed} of {len(trial.runs)}" if failed else pm(found, signed=True))
            if found and not failed:
                gains[rate] = mean_and_stderr(found)
        lines.append(_row(cells))
        if not gains:
            continue
        least = min(gains, key=lambda rate: gains[rate][0])
        safe = [rate for rate, (mean, error) in gains.items() if mean <= LEAST + NUM_ERRORS * (error or 0.0)]
        beyond = f"; the largest that does no harm is {safe[-1].replace('lr', '')}" if safe else ""
        best.append(f"{trial.setting.name}: best at memory.lr={least.replace('lr', '')}{beyond}.")
    return [*lines, "", *(f"- {each}" for each in best)]


def does_harm(trial: Trial, best: Trial) -> bool:
    """Say whether a setting diverges, or ends above another beyond errors."""
    if trial.diverged or not trial.losses:
        return True
    (mean, error), (least, other) = trial.loss, best.loss
    return mean - least > max(LEAST, NUM_ERRORS * math.hypot(error or 0.0, other or 0.0))


def gradient_norms(run: Path) -> float | None:
    """Return the largest gradient norm that a run logged."""
    if not (run / "metrics.jsonl").exists():
        return None
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    norms = [line["optim/grad_norm"] for line in lines if line.get("optim/grad_norm") is not None]
    return max(norms, default=None)


def pm(values: Sequence[float], *, signed: bool = False) -> str:
    """Write a mean with its error."""
    if not values:
        return "-"
    mean, error = mean_and_stderr(list(values))
    sign = "+" if signed else ""
    return f"{mean:{sign}.4g}" if error is None else f"{mean:{sign}.4g} ± {error:.2g}"


def _label(question: Sequence[str]) -> str:
    return next(word.removeprefix("name=") for word in question if word.startswith("name="))


def _table(headings: Sequence[str]) -> list[str]:
    return [_row(headings), _row(["---"] * len(headings))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
