"""The report on class-incremental learning: every number and every verdict is read from the stored results."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nested_learning.evals.continual.transfer import accuracy_curves, accuracy_grid, transfer
from nested_learning.report import mean_and_stderr, plot_maps, plot_panels
from nested_learning.report.text import yes_or_no

METRICS = ("accuracy", "bwt", "forgetting", "fwt", "learning_accuracy")
PLAIN, RECOMMENDED, JOINT = "sequential", "memory", "joint"
# sanity check of the metrics: accuracy of joint and sequential training, and the latter's backward transfer
MIN_JOINT, MAX_PLAIN, MIN_BWT = 0.75, 0.30, 0.50

CLASSIFIERS = """\
Ten tasks, each a domain of 15 labels. A classifier embeds a bag of hashed words, applies one level of a continuum
memory and has an output for each label. `sequential` is plain fine-tuning with AdamW, three passes over each
task; `sequential_once` one pass; `linear` trains an output for each label on the bags themselves; `joint` learns
all tasks at once; `replay` repeats 5 texts of each earlier label; `ewc` penalizes changes of weights by their Fisher
information; `cms` has three levels, updated every step, every 512 and every 4,096 texts; `m3` and `dgd` are those
optimizers, for the level and the head. The memories are not trained: each text is written once into a matrix by the
delta rule of the models' memories (`memory` with rate 0.03, `memory_fast` with 0.1; `memory_dgd` by delta gradient
descent), with its bag as key and its label as value. `attention` keeps all texts in its context and predicts from
their labels, weighted by the softmax of 20 times the similarity of their bags."""
MODELS = """\
`experiment=class_incremental` with five tasks of five labels, drawn separately for each seed: models of two layers of
width 64 are trained from scratch on `Text: ... Label: ...` and evaluated by `evals=class_incremental`: the label with
the lowest loss per token. `hope` has a fast level and a slow one, which is updated once a task."""
RECOMMENDATION = """\
Of the parts of this library `memory` forgets least: a later text changes a matrix only along its own key. The reason
is not the delta rule, but features that do not change: `linear`, plain fine-tuning of the outputs on the same bags,
is the control, and where it is above `memory` the memory has no advantage. `attention` keeps every text, while a
memory has a fixed size. Learners whose features are trained by gradient descent forget, at any update period of
their levels. The memory's rate was chosen on order 0 from 0.03, 0.1 and 0.5; the optimizers have their default
learning rates, stored constant, with which `m3` does not learn a task in three passes; other strengths of `ewc` were
not tried."""
CAVEAT = """\
All of these forget nearly everything of earlier tasks, `hope` too: it is above the transformer because it learned
the last task better in the same number of steps."""
READING = """\
The joint models were then evaluated on 25 newly drawn labels (some of which they had learned), without training:
four texts of each label are read in one context (`online`, `evals.class_incremental.mode=memory`), or memorized task
by task (`memorize`, three passes of gradient descent on the MLPs, rate 0.3) and queried after the context is removed.
Training these models to learn new labels from a stream (rows of labelled texts of HWU64 and Banking77, with other
names for the labels in each row; Titans and MAG, two layers of width 64) was stopped after two CPU minutes at the
accuracy of guessing among the labels of the row; it is not shown."""

# learner -> order -> its stored results
Results = dict[str, dict[int, dict[str, Any]]]


def write_report(path: Path, out: Path, seeds: Sequence[int]) -> None:
    """Write the report on what is in `out` to `path`, its plots into figures/ next to it."""
    classifiers, models = read_classifiers(out, seeds), read_models(out, seeds)
    lines = ["# Class-incremental learning", "", *header(classifiers, models, seeds)]
    if classifiers:
        lines += ["## Classifiers and memories", "", CLASSIFIERS, "", *table(classifiers), ""]
        lines += [*verdicts(classifiers), "", *plots(classifiers, path.parent / "figures")]
    if models:
        lines += ["## Language models", "", MODELS, "", *table(models), "", *gains_over_plain(models), "", CAVEAT, ""]
    readings = read_readings(out, seeds)
    if readings:
        lines += ["## Labels in context instead of training", "", READING, "", *reading_table(readings), ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(f"written: {path}")


def read_classifiers(out: Path, seeds: Sequence[int]) -> Results:
    """Read the results of the classifiers, sorted by name."""
    results: Results = {}
    for file in sorted(out.glob("classifier-*.json")):
        _, name, seed = file.stem.split("-")
        if int(seed) in seeds:
            stored = json.loads(file.read_text(encoding="utf-8"))
            metrics = transfer(stored["rows"])
            stored["values"] = {key: samples.metric().value for key, samples in metrics.items()}
            results.setdefault(name, {})[int(seed)] = stored | {"samples": metrics}
    return results


def read_models(out: Path, seeds: Sequence[int]) -> Results:
    """Read the reports of evals=class_incremental, the oldest first."""
    results: Results = {}
    for file in sorted(out.glob("model-*/evals/class_incremental.json"), key=lambda file: file.stat().st_mtime):
        run = file.parents[1]
        _, name, seed = run.name.split("-")
        if int(seed) in seeds:
            stored = json.loads(file.read_text(encoding="utf-8"))
            stored["values"] = {key: metric["value"] for key, metric in stored["metrics"].items()}
            environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
            last = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
            stored["commit"] = environment["git"]["commit"][:9] if environment["git"] else "unknown"
            stored["cpu_seconds"] += json.loads(last)["perf/cpu_seconds"]
            results.setdefault(name, {})[int(seed)] = stored
    return results


def read_readings(out: Path, seeds: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Read the reports of the models that read the labels in context, by memory policy."""
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in seeds:
        for policy, name in (("online", "class_incremental"), ("memorize", "class_incremental_memorize")):
            file = out / f"model-joint-{seed}" / "evals" / f"{name}_reading.json"
            if file.exists():
                results.setdefault(policy, []).append(json.loads(file.read_text(encoding="utf-8"))["metrics"])
    return results


def reading_table(results: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Return the table of the metrics with each policy, and chance."""
    lines = [f"| | runs | {' | '.join(METRICS)} | chance |", f"|---|---|{'---|' * (len(METRICS) + 1)}"]
    for policy, runs in results.items():
        cells = [percent([run[key]["value"] for run in runs]) for key in METRICS]
        chance = percent([run["accuracy"]["chance"] for run in runs][:1])
        lines.append(f"| {policy} | {len(runs)} | {' | '.join(cells)} | {chance} |")
    return lines


def header(classifiers: Results, models: Results, seeds: Sequence[int]) -> list[str]:
    """Describe the data and how the results were made."""
    stored = [each for results in (classifiers, models) for orders in results.values() for each in orders.values()]
    minutes = sum(each["cpu_seconds"] for each in stored) / 60
    orders, commits = ", ".join(map(str, seeds)), list(dict.fromkeys(each["commit"] for each in stored))
    return [
        "    python -m scripts.experiments.class_incremental.run --data ../shared/data --seeds "
        f"{orders.replace(',', '')}",
        "",
        f"Commits {commits[0]} to {commits[-1]}; one CPU thread; {minutes:.1f} CPU minutes in total. CLINC150 in its",
        f"own split: 14,630 texts for training, 2,853 for evaluation. Seeds {orders} set the order of tasks and the",
        "weights; numbers are means over them ± their standard error, in percent. A prediction is one of all labels so",
        "far; the task is not given.",
        "",
    ]


def table(results: Results) -> list[str]:
    """Return the table of the metrics of each learner, the best first."""
    lines = [f"| | orders | {' | '.join(METRICS)} | CPU s |", f"|---|---|{'---|' * (len(METRICS) + 1)}"]
    for name, orders in sorted(results.items(), key=lambda each: -mean_of(each[1], "accuracy")):
        cells = [percent([each["values"][key] for each in orders.values() if key in each["values"]]) for key in METRICS]
        seconds = sum(each["cpu_seconds"] for each in orders.values()) / len(orders)
        lines.append(f"| {name} | {len(orders)} | {' | '.join(cells)} | {seconds:.0f} |")
    return lines


def percent(values: Sequence[float]) -> str:
    """Write a mean ± its standard error, in percent."""
    if not values:
        return ""
    mean, stderr = mean_and_stderr(values)
    return f"{100 * mean:.1f}" + ("" if stderr is None else f" ± {100 * stderr:.1f}")


def verdicts(results: Results) -> list[str]:
    """Check the metrics on learners with a known outcome, and compare each learner with plain fine-tuning."""
    if JOINT not in results or PLAIN not in results:
        return []
    joint, plain = (mean_of(results[name], "accuracy") for name in (JOINT, PLAIN))
    bwt = mean_of(results[PLAIN], "bwt")
    holds = joint >= MIN_JOINT and plain <= MAX_PLAIN and abs(bwt) >= MIN_BWT
    least, most, size = (round(100 * each) for each in (MIN_JOINT, MAX_PLAIN, MIN_BWT))
    return [
        f"The metrics separate joint training from forgetting: {yes_or_no(holds)}. joint {100 * joint:.1f} % (at least "
        f"{least}), sequential {100 * plain:.1f} % (at most {most}) with a backward transfer of {100 * bwt:.1f} points "
        f"(at least {size} in size).",
        "",
        "Accuracy after all tasks minus that of plain fine-tuning, paired by order:",
        "",
        *gains_over_plain(results),
        "",
        RECOMMENDATION,
    ]


def gains_over_plain(results: Results) -> list[str]:
    """Compare each learner with plain fine-tuning, paired by order."""
    plain = results.get(PLAIN) or results.get("transformer")
    lines = []
    for name, orders in results.items():
        pairs = [seed for seed in orders if plain is not None and seed in plain and orders is not plain]
        if plain is None or len(pairs) < 2:
            continue
        gaps = [orders[seed]["values"]["accuracy"] - plain[seed]["values"]["accuracy"] for seed in pairs]
        mean, stderr = mean_and_stderr(gaps)
        assert stderr is not None
        verdict = "better" if mean > 2 * stderr else "worse" if mean < -2 * stderr else "no difference"
        lines.append(
            f"- `{name}`: accuracy {100 * mean:+.1f} ± {100 * stderr:.1f} points on {len(pairs)} orders: {verdict}"
            + (f" ({mean / stderr:.1f} standard errors)" if stderr else "")
        )
    return lines


def plots(results: Results, folder: Path) -> list[str]:
    """Draw accuracy over the tasks, and accuracy matrices of the first order."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = {name: over_orders(orders) for name, orders in results.items() if name != JOINT}
    plot_panels(folder / "class_incremental.png", {"all classes so far": lines}, "tasks learned")
    shown = {name: next(iter(orders.values()))["samples"] for name, orders in results.items() if name != JOINT}
    chosen = {name: accuracy_grid(metrics) for name, metrics in shown.items() if name in (PLAIN, "replay", RECOMMENDED)}
    plot_maps(folder / "class_incremental_map.png", chosen)
    return [
        "![Accuracy on all classes so far against tasks learned](figures/class_incremental.png)",
        "",
        "![Accuracy on each task after each task](figures/class_incremental_map.png)",
        "",
    ]


def over_orders(orders: Mapping[int, dict[str, Any]]) -> list[tuple[float, float, float | None]]:
    """Return the accuracy on all classes so far, averaged over orders."""
    every = [accuracy_curves(each["samples"])["all classes so far"]["all"] for each in orders.values()]
    return [(points[0][0], *mean_and_stderr([value for _, value, _ in points])) for points in zip(*every, strict=True)]


def mean_of(orders: Mapping[int, dict[str, Any]], key: str) -> float:
    """Return the mean of a metric over orders."""
    return math.fsum(each["values"][key] for each in orders.values()) / len(orders)
