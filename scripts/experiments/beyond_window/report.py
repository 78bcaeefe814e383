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
from nested_learning.report.text import MISSING, format_mean, table, yes_or_no
from scripts.experiments.beyond_window.trials import GAP, LONGEST, MOST, PAIRS, PARTS, SHORT, SHORT_STEPS, WINDOW

# thresholds of the verdicts: accuracies at the training gap and beyond, CPU seconds of training
MIN_NEAR, MIN_FAR, SECONDS = 0.95, 0.90, 180
BASELINE, WHOLE = "transformer_window", "transformer"
SOLVED, FAILS, LSTM_SECONDS, HOPE_SECONDS = 0.90, 0.20, 60, 300
# case and model -> the finished runs, one a seed
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
    """Read the runs of `part` in `out` that are trained and fully evaluated."""
    runs: Runs = {}
    for trial in PARTS[part]:
        for path in sorted(out.glob(f"{trial.name(0)[:-1]}[0-9]*/{SUMMARY}")):
            run = add_warmup(
                read_finished_run(path.parent), out / trial.warmup_name(int(path.parent.name.rpartition("_")[2]))
            )
            if all(name in run.evaluations for evaluation in trial.evaluations for name in evaluation.reports):
                runs.setdefault((trial.case, trial.model), []).append(run)
    return runs


def add_warmup(run: FinishedRun, warmup: Path) -> FinishedRun:
    """Add the CPU seconds of the warm-up run, if there is one."""
    if not (warmup / SUMMARY).exists():
        return run
    spent = run.summary["cpu_seconds"] + read_finished_run(warmup).summary["cpu_seconds"]
    return replace(run, summary=run.summary | {"cpu_seconds": spent})


def header(out: Path, runs: Sequence[FinishedRun]) -> list[str]:
    """Describe how and where the runs were made."""
    machine = json.loads((out / MACHINE).read_text(encoding="utf-8"))
    versions = sorted({run.environment["packages"]["torch"] for run in runs})
    return [
        "# Recall and state tracking beyond the window",
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
    """List the runs that are missing."""
    names = [
        f"{part} {trial.case} {trial.model}"
        for part, runs in parts.items()
        for trial in PARTS[part]
        if (trial.case, trial.model) not in runs
    ]
    if not names:
        return []
    return [f"Not trained yet (the same command trains them): {', '.join(names)}.", ""]


def seeds_of(runs: Sequence[FinishedRun]) -> str:
    """List the seeds of `runs`."""
    return " ".join(str(run.config["seed"]) for run in runs)


def percent(runs: Sequence[FinishedRun], answer: str, metric: str) -> str:
    """Write a metric in percent; `-` if the runs were not evaluated."""
    if not runs or answer not in runs[0].evaluations:
        return MISSING
    return format_mean(metric_values(runs, answer, metric), 1, 100)


def gap_section(runs: Runs, figures: Path) -> list[str]:
    """Report on recall across a gap that is longer than the window."""
    models = [model for _, model in runs]
    by_model = {model: each for (_, model), each in runs.items()}
    data = next(iter(by_model.values()))[0].config["data"]
    draw_gaps(by_model, figures / "beyond_window.png")
    far = [f"accuracy/{gap}/{PAIRS}" for gap in (GAP, 128, 512)]
    rows = [
        [
            model,
            *(percent(by_model[model], "recall", metric) for metric in far),
            percent(by_model[model], "recall_frozen", far[0]),
            percent(by_model[model], "recall_memorize_studied", far[0]),
            percent(by_model[model], "recall_memorize_studied", f"accuracy_wrong_context/{GAP}/{PAIRS}"),
            str(by_model[model][0].summary["step"]),
            format_mean(summary_values(by_model[model], "cpu_seconds"), 0),
            seeds_of(by_model[model]),
        ]
        for model in models
    ]
    head = ["accuracy, %", f"gap {GAP}", "gap 128", "gap 512", "frozen", "memorized", "wrong context"]
    return [
        "## Answers outside the window",
        "",
        f"Each row has {PAIRS} pairs of key and value, {GAP} tokens of noise, then the keys again "
        f"(`experiment=recall`, {data['batch_size']} rows a step, two layers of width 64). Two layers with a window of "
        f"{WINDOW} see {2 * (WINDOW - 1)} tokens back, so the windowed transformer cannot answer. Longer gaps, more "
        "pairs and changed values are evaluated without training on them. frozen: memories are not written (gap "
        f"{GAP}). memorized: pairs and noise were memorized (`memory=memorize`, the memories of mixers, one pass), "
        "then the keys are read as a new document, with empty windows and caches. wrong context: the control, in which "
        f"the pairs of another row were memorized. Chance is {1 / data['num_values']:.1%}.",
        "",
        "![Accuracy over the gap](figures/beyond_window.png)",
        "",
        *table([*head, "steps", "CPU seconds", "seeds"], rows),
        "",
        *gap_verdicts(by_model, 1 / data["num_values"]),
        "",
        *more_pairs(by_model),
    ]


def gap_verdicts(by_model: dict[str, list[FinishedRun]], chance: float) -> list[str]:
    """Judge each model at the training gap and beyond, and the windowed baseline at chance."""
    lines = []
    for model, runs in by_model.items():
        near, middle, far = (metric_values(runs, "recall", f"accuracy/{gap}/{PAIRS}") for gap in (GAP, 128, 512))
        spent = max(summary_values(runs, "cpu_seconds"))
        if model == BASELINE:
            num_answers = sum(run.metric("recall", f"accuracy/{GAP}/{PAIRS}")["n"] for run in runs) * PAIRS
            bound = chance + 3 * math.sqrt(chance * (1 - chance) / num_answers)
            lines.append(
                f"- {model}: {fmean(near):.1%} of {num_answers:,} answers at gap {GAP}; chance plus three standard "
                f"errors is {bound:.1%}: at chance: {yes_or_no(fmean(near) <= bound)}"
            )
        elif model == WHOLE:
            lines.append(
                f"- {model}: lowest at gap {GAP} {min(near):.1%}, at least {MIN_NEAR:.0%}: "
                f"{yes_or_no(min(near) >= MIN_NEAR)}; at gap 512 {fmean(far):.1%}: positions there were never trained"
            )
        else:
            passed = sum(a >= MIN_NEAR and b >= MIN_FAR for a, b in zip(near, middle, strict=True))
            holds = yes_or_no(passed >= 2 and spent <= SECONDS) if len(runs) > 1 else "**one seed, no verdict**"
            lines.append(
                f"- {model}: {passed} of {len(runs)} seeds reach {MIN_NEAR:.0%} at gap {GAP} and {MIN_FAR:.0%} at "
                f"gap 128 within {SECONDS} CPU seconds (slowest {spent:.0f}), at least two: {holds}; "
                f"{MIN_FAR:.0%} at gap 512: {yes_or_no(fmean(far) >= MIN_FAR)} ({fmean(far):.1%})"
            )
            lines.append(f"- {model}: {write_gain(runs)}")
    return lines


def write_gain(runs: Sequence[FinishedRun]) -> str:
    """Describe the gain of writing, paired by seed: online above frozen, and memorized above the wrong context."""
    metric = f"accuracy/{GAP}/{PAIRS}"
    online, frozen, memorized = (
        metric_values(runs, answer, metric) for answer in ("recall", "recall_frozen", "recall_memorize_studied")
    )
    wrong = metric_values(runs, "recall_memorize_studied", f"accuracy_wrong_context/{GAP}/{PAIRS}")
    return (
        f"online above frozen by {points(online, frozen)}; memorized above the wrong context by "
        f"{points(memorized, wrong)}"
    )


def points(first: Sequence[float], second: Sequence[float]) -> str:
    """Write the mean difference in percentage points."""
    mean, error = mean_and_stderr([100 * (a - b) for a, b in zip(first, second, strict=True)])
    return f"{mean:.1f} points" if error is None else f"{mean:.1f} ± {error:.1f} points"


def more_pairs(by_model: dict[str, list[FinishedRun]]) -> list[str]:
    """Report on more pairs than in training, and on values that change."""
    head = [
        f"accuracy at gap {GAP}, %",
        "4 pairs",
        "8 pairs",
        "16 pairs",
        "4 pairs, 2 of them changed",
        "at changed keys",
        "outdated value chosen",
    ]
    rows = [
        [
            model,
            *(percent(runs, "recall", f"accuracy/{GAP}/{pairs}") for pairs in (4, 8, 16)),
            *(percent(runs, "recall_changed", f"{metric}/{GAP}/4+2") for metric in ("accuracy", "changed", "stale")),
        ]
        for model, runs in by_model.items()
    ]
    return [
        f"More pairs than the {PAIRS} of training, and keys that appear again with another value, which then is the "
        "right one (the forgetting variant of Zoology; not trained):",
        "",
        *table(head, rows),
        "",
    ]


def draw_gaps(by_model: dict[str, list[FinishedRun]], path: Path) -> None:
    """Draw accuracy over the gap, a panel for each number of pairs."""
    panels: dict[str, Any] = {}
    for pairs in (4, 8, 16):
        panels[f"{pairs} pairs"] = {
            model: [
                (float(gap), *mean_and_stderr(metric_values(runs, "recall", f"accuracy/{gap}/{pairs}")))
                for gap in (GAP, 128, 512)
            ]
            for model, runs in by_model.items()
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_panels(path, panels, "gap, tokens of noise")


def capacity_section(runs: Runs, _: Path) -> list[str]:
    """Report on the number of pairs that a state holds."""
    first = next(iter(runs.values()))[0]
    counts = (4, 8, 16, 32)
    rows = [
        [
            model,
            *(percent(each, "recall", f"accuracy/{GAP}/{pairs}") for pairs in counts),
            format_mean(summary_values(each, "cpu_seconds"), 0),
            seeds_of(each),
        ]
        for (_, model), each in runs.items()
    ]
    return [
        "## Number of pairs",
        "",
        f"Trained on {first.config['data']['min_pairs']} to {MOST} pairs at gap {GAP} ({first.summary['step']} steps), "
        f"evaluated with a fixed number of pairs; chance is {1 / first.config['data']['num_values']:.1%}. There is no "
        "threshold.",
        "",
        *table(["accuracy, %", *(f"{pairs} pairs" for pairs in counts), "CPU seconds", "seeds"], rows),
        "",
    ]


def formal_section(runs: Runs, _: Path) -> list[str]:
    """Report on state tracking."""
    bins = (f"2-{LONGEST}", f"{LONGEST + 1}-{2 * LONGEST}")
    rows = [
        [
            language,
            model,
            *(percent(each, "formal", f"sequence_accuracy/{b}") for b in bins),
            *(percent(each, "formal", f"accuracy/{b}") for b in bins),
            str(each[0].summary["step"]),
            format_mean(summary_values(each, "cpu_seconds"), 0),
            seeds_of(each),
        ]
        for (language, model), each in runs.items()
    ]
    head = ["language", "model", *(f"words of {b} right, %" for b in bins), *(f"letters of {b} right, %" for b in bins)]
    return [
        "## State tracking",
        "",
        f"Words of 2 to {LONGEST} letters. parity: the next letter depends on whether the number of ones is even; s3: "
        "the product of permutations of three elements; mod5: the sum modulo 5. A word is right if every position is; "
        f"longer words are evaluated without training on them. For s3 and mod5 the first {SHORT_STEPS} steps have "
        f"words of up to {SHORT} letters. The LSTM, with three times the learning rate of the others, is the baseline "
        "that shows that the tasks can be learned.",
        "",
        *table([*head, "steps", "CPU seconds", "seeds"], rows),
        "",
        *formal_verdicts(runs, bins),
        "",
    ]


def formal_verdicts(runs: Runs, bins: tuple[str, str]) -> list[str]:
    """Judge whether the LSTM and HOPE solve the languages, and whether the others fail on longer words."""
    lines = []
    for (language, model), each in runs.items():
        near, far = (metric_values(each, "formal", f"sequence_accuracy/{b}") for b in bins)
        spent = max(summary_values(each, "cpu_seconds"))
        if model == "lstm" and language != "mod5":
            solved = sum(a >= SOLVED and b >= SOLVED for a, b in zip(near, far, strict=True))
            lines.append(
                f"- lstm solves {language} within {LSTM_SECONDS} CPU seconds, at both lengths: {solved} of {len(each)} "
                f"seeds (lowest {min(near):.1%} and {min(far):.1%}, slowest {spent:.0f}): "
                f"{yes_or_no(solved == len(each) and spent <= LSTM_SECONDS)}"
            )
        elif language == "parity" and model != "hope":
            lines.append(
                f"- {model} does not exceed {FAILS:.0%} on longer words of parity (highest {max(far):.1%}): "
                f"{yes_or_no(max(far) <= FAILS)}"
            )
        elif language == "parity":
            good = min(near) >= SOLVED and spent <= HOPE_SECONDS
            lines.append(
                f"- hope reaches {SOLVED:.0%} on parity within {HOPE_SECONDS} CPU seconds (lowest {min(near):.1%}, "
                f"slowest {spent:.0f}): {yes_or_no(good)}; longer words: lowest {min(far):.1%} (the paper: 100)"
            )
    return lines
