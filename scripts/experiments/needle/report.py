"""The report on facts that are memorized: every number and every verdict is read from the evaluations."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nested_learning.report import mean_and_stderr, plot_panels

QUANTILES = (0.25, 0.5, 0.75, 0.9)
# A3 and A4 of the acceptance: shares
KNOWN, MISLED, GAINED, FRACTION = 0.75, 0.30, 0.45, 0.05
NAMES = {
    "titans_lmm": "Titans (LMM), memory of the mixer",
    "hope": "HOPE, memories of the mixer",
    "transformer": "Transformer (full attention), gradient steps on its MLPs",
}
FIGURES = ("accuracy", "accuracy_wrong_context", "accuracy_reset", "contradiction")

Answers = dict[str, dict[str, Any]]


def tau_at(run: Path, quantile: float) -> float:
    """Return the surprise that a share `quantile` of the contexts in the answer `measured` of a run lies below."""
    rows = (run / "evals/measured.jsonl").read_text(encoding="utf-8").splitlines()
    return float(np.quantile([json.loads(row)["memory/surprise"] for row in rows], quantile))


def read_answers(out: Path) -> dict[str, list[Answers]]:
    """Return the answers of each model, one dictionary a seed, with `run`: where they lie."""
    found: dict[str, list[Answers]] = {}
    for model in NAMES:
        for run in sorted(out.glob(f"{model}_[0-9]*")):
            answers = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in run.glob("evals/*.json")}
            if "main" in answers:
                found.setdefault(model, []).append(answers | {"run": {"path": run}})
    return found


def write_report(out: Path, path: Path, command: str) -> Path:
    """Write the report on the runs in `out` to `path`, its figures into the folder figures/ beside it."""
    answers = read_answers(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [*header(answers, command), *main_section(answers), *grid_section(answers, path.parent / "figures")]
    lines += tau_section(answers.get("titans_lmm", []), path.parent / "figures")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def header(answers: dict[str, list[Answers]], command: str) -> list[str]:
    """Say what was asked, and how the runs were made."""
    runs = [each["run"]["path"] for seeds in answers.values() for each in seeds]
    environments = [json.loads((run / "environment.json").read_text(encoding="utf-8")) for run in runs]
    commits = sorted({each["git"]["commit"][:9] for each in environments if each["git"]})
    seconds = [json.loads((run / "summary.json").read_text(encoding="utf-8"))["cpu_seconds"] for run in runs]
    seeds = sorted({int(run.name.rpartition("_")[2]) for run in runs})
    return [
        "# The needle in two phases",
        "",
        f"    {command}",
        "",
        f"Commit {', '.join(commits)}. Seeds {', '.join(map(str, seeds))}; figures are means over the seeds ± their "
        f"standard error. Training took {sum(seconds):.0f} CPU seconds in all, and {max(seconds):.0f} at most for one.",
        "",
        "The model is told one fact, such as `The lantern of Mira is jade .`; then the text is gone: caches, windows",
        "and positions begin anew, and the question is `The lantern of Mira is`, with 8 candidates (chance 12.5 %).",
        "Without study the model cannot know. Facts are drawn at random for every example and every row of training:",
        "there is no fact to be learned, only how to be told one. The parameters are the same before and after, by",
        "their hash.",
        "",
    ]


def figures_of(seeds: Sequence[Answers], cell: str, figure: str, part: str = "metrics") -> list[float]:
    """Return a figure of an answer, one a seed."""
    return [each[cell][part][figure]["value"] for each in seeds if cell in each]


def first_answered(run: Path, cell: str) -> float:
    """Return how often the value that was told first is answered although the fact has changed since."""
    rows = [json.loads(line) for line in (run / f"evals/{cell}.jsonl").read_text(encoding="utf-8").splitlines()]
    return float(np.mean([row["chosen/contradiction"] == row["gold"] for row in rows]))


def percent(values: Sequence[float]) -> str:
    """Show a mean over seeds with its standard error, as shares."""
    mean, stderr = mean_and_stderr(values)
    return f"{mean:.1%}" + (f" ± {stderr:.1%}" if stderr is not None and len(values) > 1 else "")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def main_section(answers: dict[str, list[Answers]]) -> list[str]:
    """Compare memorize with online, and hold it against its controls."""
    lines = ["## Who studied it knows it", ""]
    for cell, title in (("main", "One fact"), ("three_facts", "Three facts, one asked")):
        rows = []
        for model, seeds in answers.items():
            if all(cell in each for each in seeds):
                in_context = percent(figures_of(seeds, f"{cell}_online", "accuracy_in_context"))
                alone = percent(figures_of(seeds, f"{cell}_online", "accuracy"))
                rows.append([NAMES[model], in_context, alone, *(percent(figures_of(seeds, cell, f)) for f in FIGURES)])
                gains = [each[cell]["difference"]["accuracy"] for each in seeds]
                paired = max(gain["stderr"] for gain in gains)
                rows[-1] += [percent([gain["value"] for gain in gains]), f"{paired:.1%}"]
                rows[-1].append(percent([first_answered(each["run"]["path"], cell) for each in seeds]))
        columns = ["", "in context", "online, alone", "**studied**", "wrong context", "reset", "changed since"]
        columns += ["gain", "its paired error", "changed, but the first answered"]
        asked = [each[cell] for seeds in answers.values() for each in seeds if cell in each]
        counts = sorted({answer["metrics"]["accuracy"]["n"] for answer in asked})
        lines += [f"{title}, {', '.join(map(str, counts))} examples a seed:", "", *table(columns, rows)]
    lines += [
        "`in context`: context and question in one text, whether the model could answer at all. `wrong context`: facts",
        "about other things were studied. `reset`: all was forgotten after study. `changed since`: that the fact has",
        "changed was studied later; what was said last is right. `gain`: studied less online; the paired error is that",
        "of the examples, the largest of any seed. With one fact it is enough to know its value, whatever it is about;",
        "with three, all three values are candidates: to know them, and not which is whose, gives 33 %.",
        "",
    ]
    return [*lines, *(f"- {line}" for line in verdicts(answers)), ""]


def verdicts(answers: dict[str, list[Answers]]) -> list[str]:
    """Say of each model and seed whether A3 holds."""
    lines = []
    for model, seeds in answers.items():
        failed = []
        for each in seeds:
            memorized, online = each["main"]["metrics"], each["main_online"]["metrics"]
            seed = each["run"]["path"].name
            alone, gain = online["accuracy"], each["main"]["difference"]["accuracy"]
            checks = {
                "alone within 2 standard errors of chance": abs(alone["value"] - alone["chance"])
                <= 2 * chance_stderr(alone),
                f"studied >= {KNOWN:.0%}": memorized["accuracy"]["value"] >= KNOWN,
                f"wrong context <= {MISLED:.0%}": memorized["accuracy_wrong_context"]["value"] <= MISLED,
                f"gain >= {GAINED:.0%}": gain["value"] >= GAINED,
                "reset is online": memorized["accuracy_reset"]["value"] == alone["value"],
                "same parameters": each["main"]["parameters_sha256"] == each["main"]["parameters_sha256_after"],
            }
            failed += [f"{seed}: {name}" for name, holds in checks.items() if not holds]
        lines.append(f"A3, {model}, {len(seeds)} seeds: **{'no' if failed else 'yes'}** {'; '.join(failed)}".rstrip())
    return lines


def chance_stderr(metric: dict[str, Any]) -> float:
    """Return the standard error of a share that is `chance` in truth."""
    return math.sqrt(metric["chance"] * (1 - metric["chance"]) / metric["n"])


def grid_section(answers: dict[str, list[Answers]], figures: Path) -> list[str]:
    """Show how often and how far: steps by rates."""
    lines = [
        "## Steps and rates",
        "",
        "Studied (wrong context), 64 examples a seed. `lr` multiplies what a level learned to write;",
        "of the MLPs of the Transformer it is the step size.",
        "",
    ]
    panels: dict[str, dict[str, list[tuple[float, float, float | None]]]] = {}
    for model, seeds in answers.items():
        # what was asked of every seed
        names = [name for name in seeds[0] if name.startswith("steps_") and not name.endswith("_online")]
        names = [name for name in names if all(name in each for each in seeds)]
        cells = {tuple(map(float, name.removeprefix("steps_").split("_lr_"))): name for name in names}
        if not cells:
            continue
        steps, rates = (sorted({key[place] for key in cells}) for place in (0, 1))
        rows = []
        for rate in rates:
            row = [f"lr {rate:g}"]
            for step in steps:
                name = cells.get((step, rate), "")
                found = figures_of(seeds, name, "accuracy")
                wrong = figures_of(seeds, name, "accuracy_wrong_context")
                row.append(f"{percent(found)} ({np.mean(wrong):.0%})" if found else "")
                if found:
                    panels.setdefault(model, {}).setdefault(f"lr {rate:g}", []).append((step, *mean_and_stderr(found)))
            rows.append(row)
        lines += [f"{NAMES[model]}:", "", *table(["", *(f"{step:g} steps" for step in steps)], rows)]
    if panels:
        figures.mkdir(parents=True, exist_ok=True)
        plot_panels(figures / "needle_steps.png", panels, "times a context is studied")
        lines += ["![accuracy by steps and rate](figures/needle_steps.png)", ""]
    return lines


def tau_section(seeds: Sequence[Answers], figures: Path) -> list[str]:
    """Show what a threshold of surprise lets through, and what that costs."""
    seeds = [each for each in seeds if f"tau_{QUANTILES[-1]}" in each]
    if not seeds:
        return []
    cells = {0.0: "tau_0", **{quantile: f"tau_{quantile}" for quantile in QUANTILES}, 1.0: "tau_inf"}
    rows, shares, points = [], {}, []
    for quantile, cell in cells.items():
        written = figures_of(seeds, cell, "memory/titan/writes")
        known = figures_of(seeds, cell, "accuracy")
        shares[quantile] = [abs(each - (1 - quantile)) for each in written]
        if known:
            points.append((quantile, *mean_and_stderr(known)))
        rows.append([f"{quantile:g}", f"{1 - quantile:.0%}", percent(written), percent(known)])
    figures.mkdir(parents=True, exist_ok=True)
    plot_panels(figures / "needle_threshold.png", {"accuracy": {"titans_lmm": points}}, "quantile of surprise")
    equal = all(each["tau_inf"]["difference"]["nats"]["value"] == 0 for each in seeds)
    falls = all(before[1] >= after[1] for before, after in pairwise(points))
    deviation = max(max(each) for each in shares.values())
    same, close, falling = ("yes" if holds else "no" for holds in (equal, deviation <= FRACTION, falls))
    return [
        "## Only what surprises",
        "",
        "Titans (LMM): a context is written only if its surprise (l2 of the teach signal) is at least",
        "`memory.surprise_threshold`, a quantile of the surprise of 512 other examples. 512 examples a seed.",
        "",
        *table(["quantile", "to be written", "written", "studied"], rows),
        "![accuracy by threshold](figures/needle_threshold.png)",
        "",
        f"- A4, share written within {FRACTION:.0%} of what the quantile says, largest deviation of any seed "
        f"{deviation:.1%}: **{close}**",
        f"- A4, accuracy falls with the threshold: **{falling}**",
        f"- A4, an infinite threshold is online, nats of every seed equal to the bit: **{same}**",
        "",
    ]
