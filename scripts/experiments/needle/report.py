"""The report on facts that are memorized: every number and every verdict is read from the evaluations."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nested_learning.report import mean_and_stderr, plot_panels
from nested_learning.report.text import table, verdict

QUANTILES = (0.25, 0.5, 0.75, 0.9)
# thresholds of the verdicts: accuracies, and the deviation of a fraction
MIN_MEMORIZED, MAX_WRONG_CONTEXT, MIN_GAIN, MAX_DEVIATION = 0.75, 0.30, 0.45, 0.05
NAMES = {
    "titans_lmm": "Titans (LMM), memory of the mixer",
    "hope": "HOPE, memories of the mixer",
    "transformer": "Transformer (full attention), gradient steps on its MLPs",
}
METRICS = ("accuracy", "accuracy_wrong_context", "accuracy_reset", "contradiction")

# of one run: name of the evaluation -> its report; `run` holds the directory
Evaluations = dict[str, dict[str, Any]]


def tau_at(run: Path, quantile: float) -> float:
    """Return the `quantile` of the surprise of the contexts in the evaluation `measured` of a run."""
    records = (run / "evals/measured.jsonl").read_text(encoding="utf-8").splitlines()
    return float(np.quantile([json.loads(record)["memory/surprise"] for record in records], quantile))


def read_evaluations(out: Path) -> dict[str, list[Evaluations]]:
    """Return the evaluations of each model, one dictionary a seed."""
    by_model: dict[str, list[Evaluations]] = {}
    for model in NAMES:
        for run in sorted(out.glob(f"{model}_[0-9]*")):
            evaluations = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in run.glob("evals/*.json")}
            if "main" in evaluations:
                by_model.setdefault(model, []).append(evaluations | {"run": {"path": run}})
    return by_model


def write_report(out: Path, path: Path, command: str) -> Path:
    """Write the report on the runs in `out` to `path`, its plots into figures/ next to it."""
    evaluations = read_evaluations(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        *header(evaluations, command),
        *main_section(evaluations),
        *grid_section(evaluations, path.parent / "figures"),
    ]
    lines += tau_section(evaluations.get("titans_lmm", []), path.parent / "figures")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def header(evaluations: dict[str, list[Evaluations]], command: str) -> list[str]:
    """Describe the task and how the runs were made."""
    runs = [each["run"]["path"] for seeds in evaluations.values() for each in seeds]
    environments = [json.loads((run / "environment.json").read_text(encoding="utf-8")) for run in runs]
    commits = sorted({each["git"]["commit"][:9] for each in environments if each["git"]})
    seconds = [json.loads((run / "summary.json").read_text(encoding="utf-8"))["cpu_seconds"] for run in runs]
    seeds = sorted({int(run.name.rpartition("_")[2]) for run in runs})
    return [
        "# Recall of a fact after its context is removed",
        "",
        f"    {command}",
        "",
        f"Commit {', '.join(commits)}. Seeds {', '.join(map(str, seeds))}; numbers are means over the seeds ± their "
        f"standard error. Training took {sum(seconds):.0f} CPU seconds in total, at most {max(seconds):.0f} for one",
        "run. ",
        "With memory=memorize the model memorizes a context with one fact, such as `The lantern of Mira is jade .`.",
        "Then the context is removed: KV caches, windows and positions are cleared. The prompt is `The lantern of Mira",
        "is`, with 8 candidates (chance 12.5 %), so without memorizing the model cannot answer. Facts are random in",
        "every example and every training row: training cannot teach facts, only how to store them. The trained",
        "parameters do not change, which is checked by their hash.",
        "",
    ]


def values_of(seeds: Sequence[Evaluations], evaluation: str, metric: str) -> list[float]:
    """Return a metric of an evaluation, one value a seed."""
    return [each[evaluation]["metrics"][metric]["value"] for each in seeds if evaluation in each]


def outdated_answers(run: Path, evaluation: str) -> float:
    """Return how often the first value of a fact is chosen although the fact has changed since."""
    lines = (run / f"evals/{evaluation}.jsonl").read_text(encoding="utf-8").splitlines()
    return float(np.mean([record["chosen/contradiction"] == record["gold"] for record in map(json.loads, lines)]))


def percent(values: Sequence[float]) -> str:
    """Write the mean over seeds ± its standard error, in percent."""
    mean, stderr = mean_and_stderr(values)
    return f"{mean:.1%}" + (f" ± {stderr:.1%}" if stderr is not None and len(values) > 1 else "")


def main_section(evaluations: dict[str, list[Evaluations]]) -> list[str]:
    """Compare memorize with online and with its controls."""
    lines = ["## Accuracy with and without memorizing", ""]
    for cell, title in (("main", "One fact"), ("three_facts", "Three facts, one of them queried")):
        rows = []
        for model, seeds in evaluations.items():
            if all(cell in each for each in seeds):
                in_context = percent(values_of(seeds, f"{cell}_online", "accuracy_in_context"))
                alone = percent(values_of(seeds, f"{cell}_online", "accuracy"))
                rows.append([NAMES[model], in_context, alone, *(percent(values_of(seeds, cell, f)) for f in METRICS)])
                gains = [each[cell]["difference"]["accuracy"] for each in seeds]
                paired = max(gain["stderr"] for gain in gains)
                rows[-1] += [percent([gain["value"] for gain in gains]), f"{paired:.1%}"]
                rows[-1].append(percent([outdated_answers(each["run"]["path"], cell) for each in seeds]))
        columns = [
            "",
            "in context",
            "online, question alone",
            "**memorized**",
            "wrong context",
            "memory cleared",
            "fact changed",
        ]
        columns += ["gain", "paired error of the gain", "fact changed, old value chosen"]
        reports = [each[cell] for seeds in evaluations.values() for each in seeds if cell in each]
        counts = sorted({report["metrics"]["accuracy"]["n"] for report in reports})
        lines += [f"{title}, {', '.join(map(str, counts))} examples a seed:", "", *table(columns, rows), ""]
    lines += [
        "`in context`: context and question in one text; the upper bound. Controls: `wrong context`: facts about other",
        "things were memorized; `memory cleared`: the memory was reset after memorizing; `fact changed`: a new value",
        "of the fact was memorized later and is the right one. `gain`: memorized minus online; its error is paired",
        "over examples, the largest of any seed. With one fact it suffices to store the value, whatever it belongs to;",
        "with three facts all three values are candidates, and knowing them without their keys gives 33 %.",
        "",
    ]
    return [*lines, *verdicts(evaluations), ""]


def verdicts(evaluations: dict[str, list[Evaluations]]) -> list[str]:
    """Return for each model whether memorizing works with every seed, and which check fails where."""
    lines = []
    for model, seeds in evaluations.items():
        failed = []
        for each in seeds:
            memorized, online = each["main"]["metrics"], each["main_online"]["metrics"]
            seed = each["run"]["path"].name
            alone, gain = online["accuracy"], each["main"]["difference"]["accuracy"]
            checks = {
                "online within 2 standard errors of chance": abs(alone["value"] - alone["chance"])
                <= 2 * chance_stderr(alone),
                f"memorized >= {MIN_MEMORIZED:.0%}": memorized["accuracy"]["value"] >= MIN_MEMORIZED,
                f"wrong context <= {MAX_WRONG_CONTEXT:.0%}": memorized["accuracy_wrong_context"]["value"]
                <= MAX_WRONG_CONTEXT,
                f"gain >= {MIN_GAIN:.0%}": gain["value"] >= MIN_GAIN,
                "memory cleared equals online": memorized["accuracy_reset"]["value"] == alone["value"],
                "same parameters": each["main"]["parameters_sha256"] == each["main"]["parameters_sha256_after"],
            }
            failed += [f"{seed}: {name}" for name, holds in checks.items() if not holds]
        claim = f"{model} recalls the fact after its context is removed, and every control holds, with all "
        claim += f"{len(seeds)} seeds"
        lines.append(f"{verdict(claim, not failed)} {'; '.join(failed)}".rstrip())
    return lines


def chance_stderr(metric: dict[str, Any]) -> float:
    """Return the standard error of an accuracy whose expected value is chance."""
    return math.sqrt(metric["chance"] * (1 - metric["chance"]) / metric["n"])


def grid_section(evaluations: dict[str, list[Evaluations]], figures: Path) -> list[str]:
    """Report on the number of steps and the learning rate of memorizing."""
    lines = [
        "## Steps and learning rates of memorizing",
        "",
        "Accuracy when memorized (in brackets: wrong context), 64 examples a seed. `lr` multiplies the writes that a",
        "level learned in training; for the MLPs of the Transformer it is the learning rate.",
        "",
    ]
    panels: dict[str, dict[str, list[tuple[float, float, float | None]]]] = {}
    for model, seeds in evaluations.items():
        # evaluations that every seed has
        names = [name for name in seeds[0] if name.startswith("steps_") and not name.endswith("_online")]
        names = [name for name in names if all(name in each for each in seeds)]
        cells = {tuple(map(float, name.removeprefix("steps_").split("_lr_"))): name for name in names}
        if not cells:
            continue
        steps, rates = (sorted({key[index] for key in cells}) for index in (0, 1))
        rows = []
        for rate in rates:
            row = [f"lr {rate:g}"]
            for step in steps:
                name = cells.get((step, rate), "")
                accuracy = values_of(seeds, name, "accuracy")
                wrong = values_of(seeds, name, "accuracy_wrong_context")
                row.append(f"{percent(accuracy)} ({np.mean(wrong):.0%})" if accuracy else "")
                if accuracy:
                    panels.setdefault(model, {}).setdefault(f"lr {rate:g}", []).append(
                        (step, *mean_and_stderr(accuracy))
                    )
            rows.append(row)
        lines += [f"{NAMES[model]}:", "", *table(["", *(f"{step:g} steps" for step in steps)], rows), ""]
    if panels:
        figures.mkdir(parents=True, exist_ok=True)
        plot_panels(figures / "needle_steps.png", panels, "steps")
        lines += ["![accuracy by steps and learning rate](figures/needle_steps.png)", ""]
    return lines


def tau_section(seeds: Sequence[Evaluations], figures: Path) -> list[str]:
    """Report on thresholds of surprise: how many contexts are written, and the accuracy."""
    seeds = [each for each in seeds if f"tau_{QUANTILES[-1]}" in each]
    if not seeds:
        return []
    cells = {0.0: "tau_0", **{quantile: f"tau_{quantile}" for quantile in QUANTILES}, 1.0: "tau_inf"}
    rows, deviations, points = [], {}, []
    for quantile, cell in cells.items():
        written = values_of(seeds, cell, "memory/titan/writes")
        accuracy = values_of(seeds, cell, "accuracy")
        deviations[quantile] = [abs(each - (1 - quantile)) for each in written]
        if accuracy:
            points.append((quantile, *mean_and_stderr(accuracy)))
        rows.append([f"{quantile:g}", f"{1 - quantile:.0%}", percent(written), percent(accuracy)])
    figures.mkdir(parents=True, exist_ok=True)
    plot_panels(figures / "needle_threshold.png", {"accuracy": {"titans_lmm": points}}, "quantile of surprise")
    equal = all(each["tau_inf"]["difference"]["nats"]["value"] == 0 for each in seeds)
    falls = all(before[1] >= after[1] for before, after in pairwise(points))
    deviation = max(max(each) for each in deviations.values())
    return [
        "## Write only surprising contexts",
        "",
        "Titans (LMM): a context is written only if its surprise (l2 norm of the teach signal) is at least",
        "`memory.surprise_threshold`, a quantile of the surprise of 512 other examples. 512 examples a seed.",
        "",
        *table(["quantile", "expected fraction written", "fraction written", "accuracy"], rows),
        "",
        "![accuracy by threshold](figures/needle_threshold.png)",
        "",
        verdict(
            f"the fraction written is within {MAX_DEVIATION:.0%} of the quantile's, largest deviation of any seed "
            f"{deviation:.1%}",
            deviation <= MAX_DEVIATION,
        ),
        verdict("accuracy falls with the threshold", falls),
        verdict("an infinite threshold equals memory=online, nats of every seed equal to the bit", equal),
        "",
    ]
