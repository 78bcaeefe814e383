"""The report on answers outside the window: every number and every verdict is computed from the run directories."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from nested_learning.report import SUMMARY, mean_and_stderr, plot_panels
from nested_learning.report.runs import (
    MACHINE,
    FinishedRun,
    commit_of,
    metric_values,
    read_finished_run,
    summary_values,
)
from nested_learning.report.text import format_mean, table
from scripts.experiments.beyond_window.trials import GAP, LONGEST, MOST, PAIRS, PARTS, SHORT, SHORT_STEPS, WINDOW

# what counts as reached (shares of answers), in CPU seconds of training
REACHED, FAR, SECONDS = 0.95, 0.90, 180
BASELINE, WHOLE = "transformer_window", "transformer"
SOLVED, FAILS, LSTM_SECONDS, HOPE_SECONDS = 0.90, 0.20, 60, 300
NONE = "-"
# case and model -> the finished runs, which differ in their seed only
Runs = dict[tuple[str, str], list[FinishedRun]]


def write_report(out: Path, path: Path) -> Path:
    """Write the report on the runs in `out` to `path`, its plots into figures/ next to it."""
    parts = {part: read_part(out, part) for part in PARTS}
    sections = {"gap": gap_section, "capacity": capacity_section, "formal": formal_section}
    lines = header(out, [run for runs in parts.values() for each in runs.values() for run in each])
    lines += missing(parts)
    for part, runs in parts.items():
        if runs:
            lines += sections[part](runs, path.parent / "figures")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_part(out: Path, part: str) -> Runs:
    """Read the runs of `part` in `out` that are trained and have been asked everything."""
    found: Runs = {}
    for trial in PARTS[part]:
        for path in sorted(out.glob(f"{trial.name(0)[:-1]}[0-9]*/{SUMMARY}")):
            run = add_course(
                read_finished_run(path.parent), out / trial.course_name(int(path.parent.name.rpartition("_")[2]))
            )
            if all(answer in run.evaluations for evaluation in trial.evaluations for answer in evaluation.answers):
                found.setdefault((trial.case, trial.model), []).append(run)
    return found


def add_course(run: FinishedRun, course: Path) -> FinishedRun:
    """Add the CPU seconds of the run that `run` began with, where there is one."""
    if not (course / SUMMARY).exists():
        return run
    spent = run.summary["cpu_seconds"] + read_finished_run(course).summary["cpu_seconds"]
    return replace(run, summary=run.summary | {"cpu_seconds": spent})


def header(out: Path, runs: Sequence[FinishedRun]) -> list[str]:
    """Describe how and where the runs were made."""
    machine = json.loads((out / MACHINE).read_text(encoding="utf-8"))
    versions = sorted({run.environment["packages"]["torch"] for run in runs})
    return [
        "# Beyond the window",
        "",
        *(f"    {command}" for command in machine["commands"]),
        "",
        f"Trained at commit {', '.join(sorted({commit_of(run.environment) for run in runs}))}. {machine['cpu']}, "
        f"{machine['cores']} cores, one thread, torch {', '.join(versions)}. {len(runs)} runs, "
        f"{sum(summary_values(runs, 'cpu_seconds')) / 60:.0f} CPU minutes of training. Numbers are means over the "
        "seeds ± their standard error; every answer, right or wrong, is in the runs' `evals/*.jsonl`. Questions are "
        "validation rows, which were never trained.",
        "",
    ]


def missing(parts: dict[str, Runs]) -> list[str]:
    """Say which runs of the script are not there."""
    names = [
        f"{part} {trial.case} {trial.model}"
        for part, runs in parts.items()
        for trial in PARTS[part]
        if (trial.case, trial.model) not in runs
    ]
    if not names:
        return []
    return [f"Not trained yet, the same command goes on with them: {', '.join(names)}.", ""]


def seeds_of(runs: Sequence[FinishedRun]) -> str:
    """List the seeds of `runs`."""
    return " ".join(str(run.config["seed"]) for run in runs)


def share(runs: Sequence[FinishedRun], answer: str, figure: str) -> str:
    """Write a figure in percent; nothing where it was not asked."""
    if not runs or answer not in runs[0].evaluations:
        return NONE
    return format_mean(metric_values(runs, answer, figure), 1, 100)


def gap_section(runs: Runs, figures: Path) -> list[str]:
    """Report on answers outside the window: A1 of the specification."""
    models = [model for _, model in runs]
    of = {model: each for (_, model), each in runs.items()}
    data = next(iter(of.values()))[0].config["data"]
    draw_gaps(of, figures / "beyond_window.png")
    far = [f"accuracy/{gap}/{PAIRS}" for gap in (GAP, 128, 512)]
    rows = [
        [
            model,
            *(share(of[model], "recall", figure) for figure in far),
            share(of[model], "recall_frozen", far[0]),
            share(of[model], "recall_memorize_studied", far[0]),
            share(of[model], "recall_memorize_studied", f"accuracy_wrong_context/{GAP}/{PAIRS}"),
            str(of[model][0].summary["step"]),
            format_mean(summary_values(of[model], "cpu_seconds"), 0),
            seeds_of(of[model]),
        ]
        for model in models
    ]
    head = ["accuracy, %", f"gap {GAP}", "gap 128", "gap 512", "frozen", "studied", "another row studied"]
    return [
        "## Answers outside the window",
        "",
        f"{PAIRS} pairs of key and value, {GAP} tokens of noise, then the keys again (`experiment=recall`, "
        f"{data['batch_size']} rows a step, two layers of width 64). A window of {WINDOW} lets two layers see "
        f"{2 * (WINDOW - 1)} tokens back: the windowed transformer cannot know. Longer gaps, more pairs and changed "
        "values are read without training. frozen: memories are not written (gap "
        f"{GAP}). studied: pairs and noise were studied (`memory=memorize`, the memories of mixers, one pass) and the "
        "keys asked as another text, windows and caches empty; another row studied: the control, in which the pairs "
        f"were those of another row. Chance is {1 / data['num_values']:.1%}.",
        "",
        "![Accuracy over the gap](figures/beyond_window.png)",
        "",
        *table([*head, "steps", "CPU seconds", "seeds"], rows),
        "",
        *gap_verdicts(of, 1 / data["num_values"]),
        "",
        *more_pairs(of),
    ]


def gap_verdicts(of: dict[str, list[FinishedRun]], chance: float) -> list[str]:
    """Judge what the specification asks for."""
    lines = []
    for model, runs in of.items():
        near, middle, far = (metric_values(runs, "recall", f"accuracy/{gap}/{PAIRS}") for gap in (GAP, 128, 512))
        spent = max(summary_values(runs, "cpu_seconds"))
        if model == BASELINE:
            asks = sum(run.metric("recall", f"accuracy/{GAP}/{PAIRS}")["n"] for run in runs) * PAIRS
            bound = chance + 3 * math.sqrt(chance * (1 - chance) / asks)
            lines.append(
                f"- {model}: {fmean(near):.1%} of {asks:,} answers at gap {GAP}; chance and three standard errors "
                f"are {bound:.1%}: at chance: {yes(fmean(near) <= bound)}"
            )
        elif model == WHOLE:
            lines.append(
                f"- {model}: lowest at gap {GAP} {min(near):.1%}, at least {REACHED:.0%}: "
                f"{yes(min(near) >= REACHED)}; at gap 512 {fmean(far):.1%}: its positions were never trained"
            )
        else:
            passed = sum(a >= REACHED and b >= FAR for a, b in zip(near, middle, strict=True))
            holds = yes(passed >= 2 and spent <= SECONDS) if len(runs) > 1 else "**one seed, no judgement**"
            lines.append(
                f"- {model}: {passed} of {len(runs)} seeds reach {REACHED:.0%} at gap {GAP} and {FAR:.0%} at gap 128 "
                f"within {SECONDS} CPU seconds (slowest {spent:.0f}), two have to: {holds}; {FAR:.0%} at gap 512: "
                f"{yes(fmean(far) >= FAR)} ({fmean(far):.1%})"
            )
            lines.append(f"- {model}: {worth(runs)}")
    return lines


def worth(runs: Sequence[FinishedRun]) -> str:
    """Say what writing is worth, pair by pair of seeds: online above frozen, and studied above the wrong context."""
    figure = f"accuracy/{GAP}/{PAIRS}"
    online, frozen, memorized = (
        metric_values(runs, answer, figure) for answer in ("recall", "recall_frozen", "recall_memorize_studied")
    )
    wrong = metric_values(runs, "recall_memorize_studied", f"accuracy_wrong_context/{GAP}/{PAIRS}")
    return (
        f"online above frozen by {points(online, frozen)}; studied above another row studied by "
        f"{points(memorized, wrong)}"
    )


def points(first: Sequence[float], second: Sequence[float]) -> str:
    """Write the mean of differences, in points."""
    mean, error = mean_and_stderr([100 * (a - b) for a, b in zip(first, second, strict=True)])
    return f"{mean:.1f} points" if error is None else f"{mean:.1f} ± {error:.1f} points"


def yes(holds: bool) -> str:
    """Write a judgement."""
    return "**yes**" if holds else "**no**"


def more_pairs(of: dict[str, list[FinishedRun]]) -> list[str]:
    """Report on more pairs than were trained, and on values that change."""
    head = [
        f"accuracy at gap {GAP}, %",
        "4 pairs",
        "8 pairs",
        "16 pairs",
        "4, of them 2 changed",
        "at changed keys",
        "the value that no longer holds",
    ]
    rows = [
        [
            model,
            *(share(runs, "recall", f"accuracy/{GAP}/{pairs}") for pairs in (4, 8, 16)),
            *(share(runs, "recall_changed", f"{figure}/{GAP}/4+2") for figure in ("accuracy", "changed", "stale")),
        ]
        for model, runs in of.items()
    ]
    return [
        f"More pairs than the {PAIRS} that were trained, and keys that are told again with another value, which is the "
        "one that counts (Zoology's forgetting variant; never trained):",
        "",
        *table(head, rows),
        "",
    ]


def draw_gaps(of: dict[str, list[FinishedRun]], path: Path) -> None:
    """Draw accuracy over the gap, a panel for each number of pairs."""
    panels: dict[str, Any] = {}
    for pairs in (4, 8, 16):
        panels[f"{pairs} pairs"] = {
            model: [
                (float(gap), *mean_and_stderr(metric_values(runs, "recall", f"accuracy/{gap}/{pairs}")))
                for gap in (GAP, 128, 512)
            ]
            for model, runs in of.items()
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_panels(path, panels, "gap, tokens of noise")


def capacity_section(runs: Runs, _: Path) -> list[str]:
    """Report on how many pairs a state holds: A2 of the specification."""
    first = next(iter(runs.values()))[0]
    counts = (4, 8, 16, 32)
    rows = [
        [
            model,
            *(share(each, "recall", f"accuracy/{GAP}/{pairs}") for pairs in counts),
            format_mean(summary_values(each, "cpu_seconds"), 0),
            seeds_of(each),
        ]
        for (_, model), each in runs.items()
    ]
    return [
        "## How many pairs",
        "",
        f"Trained on {first.config['data']['min_pairs']} to {MOST} pairs at gap {GAP} ({first.summary['step']} steps), "
        f"asked about rows of exactly so many; chance is {1 / first.config['data']['num_values']:.1%}. No threshold.",
        "",
        *table(["accuracy, %", *(f"{pairs} pairs" for pairs in counts), "CPU seconds", "seeds"], rows),
        "",
    ]


def formal_section(runs: Runs, _: Path) -> list[str]:
    """Report on state tracking: A10 of the specification."""
    bins = (f"2-{LONGEST}", f"{LONGEST + 1}-{2 * LONGEST}")
    rows = [
        [
            language,
            model,
            *(share(each, "formal", f"sequence_accuracy/{b}") for b in bins),
            *(share(each, "formal", f"accuracy/{b}") for b in bins),
            str(each[0].summary["step"]),
            format_mean(summary_values(each, "cpu_seconds"), 0),
            seeds_of(each),
        ]
        for (language, model), each in runs.items()
    ]
    head = ["language", "model", *(f"words of {b} right, %" for b in bins), *(f"letters of {b} right, %" for b in bins)]
    return [
        "## States that must flip",
        "",
        f"Words of 2 to {LONGEST} letters; parity: what may follow depends on the number of ones; s3: the product of "
        "permutations of three things; mod5: the sum modulo 5. A word counts when every position is right; longer "
        f"words are read without training. Of s3 and mod5 words of up to {SHORT} letters come first, for {SHORT_STEPS} "
        "of the steps. The LSTM learns with three times the others' rate, as the baseline that shows that the task can "
        "be learned here.",
        "",
        *table([*head, "steps", "CPU seconds", "seeds"], rows),
        "",
        *formal_verdicts(runs, bins),
        "",
    ]


def formal_verdicts(runs: Runs, bins: tuple[str, str]) -> list[str]:
    """Judge what the specification asks for."""
    lines = []
    for (language, model), each in runs.items():
        near, far = (metric_values(each, "formal", f"sequence_accuracy/{b}") for b in bins)
        spent = max(summary_values(each, "cpu_seconds"))
        if model == "lstm" and language != "mod5":
            solved = sum(a >= SOLVED and b >= SOLVED for a, b in zip(near, far, strict=True))
            lines.append(
                f"- lstm solves {language} within {LSTM_SECONDS} CPU seconds, at both lengths: {solved} of {len(each)} "
                f"seeds (lowest {min(near):.1%} and {min(far):.1%}, slowest {spent:.0f}): "
                f"{yes(solved == len(each) and spent <= LSTM_SECONDS)}"
            )
        elif language == "parity" and model != "hope":
            lines.append(
                f"- {model} does not exceed {FAILS:.0%} on longer words of parity (highest {max(far):.1%}): "
                f"{yes(max(far) <= FAILS)}"
            )
        elif language == "parity":
            good = min(near) >= SOLVED and spent <= HOPE_SECONDS
            lines.append(
                f"- hope reaches {SOLVED:.0%} on parity within {HOPE_SECONDS} CPU seconds (lowest {min(near):.1%}, "
                f"slowest {spent:.0f}): {yes(good)}; longer words: lowest {min(far):.1%} (the paper: 100)"
            )
    return lines
