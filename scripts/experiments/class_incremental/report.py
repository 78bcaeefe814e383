"""The report on class-incremental learning: every number and every verdict is read from the stored results."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nested_learning.evals.continual.transfer import curves, grid, transfer
from nested_learning.report import mean_and_stderr, plot_maps, plot_panels

FIGURES = ("accuracy", "bwt", "forgetting", "fwt", "learning_accuracy")
PLAIN, RECOMMENDED, JOINT = "sequential", "memory", "joint"
# A8: what shows that the figures measure what they say
JOINT_AT_LEAST, PLAIN_AT_MOST, BWT_AT_LEAST = 0.75, 0.30, 0.50

CLASSIFIERS = """\
Ten tasks, a domain of 15 labels each. A classifier embeds a bag of hashed words, reads one level of a continuum
memory and has an output for each label. `sequential` is plain fine-tuning with AdamW, three passes over each
task; `sequential_once` one pass; `linear` trains an output for each label on the bags themselves; `joint` learns
all tasks at once; `replay` reads 5 texts of each earlier label again; `ewc` holds on to weights by their Fisher
information; `cms` has three levels, of every step, 512 and 4,096 texts; `m3` and `dgd` are those optimizers, for
the level and the head. The memories are not trained: each text is written once into a matrix by the delta rule of
the models' memories (`memory` at rate 0.03, `memory_fast` at 0.1; `memory_dgd` by delta gradient descent), its
bag the key, its label the value. `attention` keeps all texts in its context and answers by their labels, weighted
by the softmax of 20 times the similarity of their bags."""
MODELS = """\
`experiment=class_incremental` at five tasks of five labels, drawn anew for each seed: models of two layers of
width 64 are trained from nothing on `Text: ... Label: ...` and asked by `evals=class_incremental`: the label with
the fewest nats a token. `hope` has a fast level and a slow one, which moves once a task."""
RECOMMENDATION = """\
Of the parts of this library `memory` is the one to take against forgetting: a text that comes later changes a
matrix along its own key only. But it is not the delta rule that makes the difference, it is features that nothing
changes: `linear`, plain fine-tuning of the outputs on the same bags, is the control, and where it is above
`memory` a memory has no lead of its own. `attention` keeps every text, where a memory is of one size whatever it
reads. What trains its features by gradient descent forgets, at whatever pace its levels learn. The memory's rate
was chosen on order 0 among 0.03, 0.1 and 0.5; the optimizers have the rates of their options, kept constant, at
which `m3` does not learn a task in three passes; other strengths of `ewc` were not tried."""
CAVEAT = """\
All of these forget nearly everything of earlier tasks, `hope` too: where its accuracy is above that of the
transformer, it is because it learned the last task better in as many steps."""
READING = """\
The joint models were then asked about 25 labels drawn anew (some of which they had learned), with nothing
trained: four texts of each label are read in one context (`online`, `evals.class_incremental.mode=memory`), or
studied task by task (`memorize`, three passes of gradient descent on the MLPs, rate 0.3) and asked when they are
out of the context. Training these models to learn new labels from a stream (rows of labelled texts of HWU64 and
Banking77, with other names for the labels in each row; Titans and MAG, two layers of width 64) was tried and
stopped after two CPU minutes at the accuracy of guessing among the labels of the row: it is not shown."""

# learner -> order -> what was kept of it
Found = dict[str, dict[int, dict[str, Any]]]


def write_report(path: Path, out: Path, seeds: Sequence[int]) -> None:
    """Write the report on what is in `out` to `path`, its plots into figures/ beside it."""
    classifiers, models = read_classifiers(out, seeds), read_models(out, seeds)
    lines = ["# Class-incremental learning", "", *header(classifiers, models, seeds)]
    if classifiers:
        lines += ["## Classifiers and memories", "", CLASSIFIERS, "", *table(classifiers), ""]
        lines += [*verdicts(classifiers), "", *plots(classifiers, path.parent / "figures")]
    if models:
        lines += ["## Language models", "", MODELS, "", *table(models), "", *against(models), "", CAVEAT, ""]
    readings = read_readings(out, seeds)
    if readings:
        lines += ["## Reading instead of training", "", READING, "", *reading_table(readings), ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(f"written: {path}")


def read_classifiers(out: Path, seeds: Sequence[int]) -> Found:
    """Read what classifiers answered, in the order of the first one that learned."""
    found: Found = {}
    for file in sorted(out.glob("classifier-*.json")):
        _, name, seed = file.stem.split("-")
        if int(seed) in seeds:
            kept = json.loads(file.read_text(encoding="utf-8"))
            figures = transfer(kept["rows"])
            kept["values"] = {key: samples.metric().value for key, samples in figures.items()}
            found.setdefault(name, {})[int(seed)] = kept | {"figures": figures}
    return found


def read_models(out: Path, seeds: Sequence[int]) -> Found:
    """Read the reports of the pack."""
    found: Found = {}
    for file in sorted(out.glob("model-*/evals/class_incremental.json"), key=lambda file: file.stat().st_mtime):
        run = file.parents[1]
        _, name, seed = run.name.split("-")
        if int(seed) in seeds:
            kept = json.loads(file.read_text(encoding="utf-8"))
            kept["values"] = {key: figure["value"] for key, figure in kept["metrics"].items()}
            environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
            last = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
            kept["commit"] = environment["git"]["commit"][:9] if environment["git"] else "unknown"
            kept["cpu_seconds"] += json.loads(last)["perf/cpu_seconds"]
            found.setdefault(name, {})[int(seed)] = kept
    return found


def read_readings(out: Path, seeds: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Read what models answered that read the tasks, by memory policy."""
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in seeds:
        for policy, name in (("online", "class_incremental"), ("memorize", "class_incremental_memorize")):
            file = out / f"model-joint-{seed}" / "evals" / f"{name}_reading.json"
            if file.exists():
                found.setdefault(policy, []).append(json.loads(file.read_text(encoding="utf-8"))["metrics"])
    return found


def reading_table(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Return a line of the figures under each policy, beside chance."""
    lines = [f"| | runs | {' | '.join(FIGURES)} | chance |", f"|---|---|{'---|' * (len(FIGURES) + 1)}"]
    for policy, runs in found.items():
        cells = [show([run[key]["value"] for run in runs]) for key in FIGURES]
        chance = show([run["accuracy"]["chance"] for run in runs][:1])
        lines.append(f"| {policy} | {len(runs)} | {' | '.join(cells)} | {chance} |")
    return lines


def header(classifiers: Found, models: Found, seeds: Sequence[int]) -> list[str]:
    """Say how it was made."""
    kept = [each for found in (classifiers, models) for orders in found.values() for each in orders.values()]
    minutes = sum(each["cpu_seconds"] for each in kept) / 60
    orders, commits = ", ".join(map(str, seeds)), list(dict.fromkeys(each["commit"] for each in kept))
    return [
        "    python -m scripts.experiments.class_incremental.run --data ../shared/data --seeds "
        f"{orders.replace(',', '')}",
        "",
        f"Commits {commits[0]} to {commits[-1]}; one CPU thread; {minutes:.1f} CPU minutes in all. CLINC150 in its own",
        f"split, 14,630 texts to learn, 2,853 unseen ones to ask. Seeds {orders}, of the order of tasks and of the",
        "weights: figures are means over them ± their standard error, in per cent. Answers are chosen among all labels",
        "so far; no task is named.",
        "",
    ]


def table(found: Found) -> list[str]:
    """Return a line of the figures for each learner."""
    lines = [f"| | orders | {' | '.join(FIGURES)} | CPU s |", f"|---|---|{'---|' * (len(FIGURES) + 1)}"]
    for name, orders in sorted(found.items(), key=lambda each: -mean_of(each[1], "accuracy")):
        cells = [show([each["values"][key] for each in orders.values() if key in each["values"]]) for key in FIGURES]
        seconds = sum(each["cpu_seconds"] for each in orders.values()) / len(orders)
        lines.append(f"| {name} | {len(orders)} | {' | '.join(cells)} | {seconds:.0f} |")
    return lines


def show(values: Sequence[float]) -> str:
    """Write a mean in per cent, with its error."""
    if not values:
        return ""
    mean, stderr = mean_and_stderr(values)
    return f"{100 * mean:.1f}" + ("" if stderr is None else f" ± {100 * stderr:.1f}")


def verdicts(found: Found) -> list[str]:
    """Say what holds of A8, and which learner is better than plain fine-tuning."""
    if JOINT not in found or PLAIN not in found:
        return []
    joint, plain = (mean_of(found[name], "accuracy") for name in (JOINT, PLAIN))
    bwt = mean_of(found[PLAIN], "bwt")
    holds = joint >= JOINT_AT_LEAST and plain <= PLAIN_AT_MOST and abs(bwt) >= BWT_AT_LEAST
    least, most, size = (round(100 * each) for each in (JOINT_AT_LEAST, PLAIN_AT_MOST, BWT_AT_LEAST))
    return [
        f"**A8 {'holds' if holds else 'does not hold'}**: joint {100 * joint:.1f} % (at least {least}), sequential "
        f"{100 * plain:.1f} % (at most {most}), its backward transfer {100 * bwt:.1f} points (at least {size}).",
        "",
        "Accuracy after all tasks, less that of plain fine-tuning, pair by pair:",
        "",
        *against(found),
        "",
        RECOMMENDATION,
    ]


def against(found: Found) -> list[str]:
    """Compare each learner with plain fine-tuning, order by order."""
    plain = found.get(PLAIN) or found.get("transformer")
    lines = []
    for name, orders in found.items():
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


def plots(found: Found, folder: Path) -> list[str]:
    """Draw accuracy over the tasks, and the matrices of the first order."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = {name: over_orders(orders) for name, orders in found.items() if name != JOINT}
    plot_panels(folder / "class_incremental.png", {"all classes so far": lines}, "tasks learned")
    shown = {name: next(iter(orders.values()))["figures"] for name, orders in found.items() if name != JOINT}
    chosen = {name: grid(figures) for name, figures in shown.items() if name in (PLAIN, "replay", RECOMMENDED)}
    plot_maps(folder / "class_incremental_map.png", chosen)
    return [
        "![Accuracy on all classes so far against tasks learned](figures/class_incremental.png)",
        "",
        "![Accuracy on each task after each task](figures/class_incremental_map.png)",
        "",
    ]


def over_orders(orders: Mapping[int, dict[str, Any]]) -> list[tuple[float, float, float | None]]:
    """Return accuracy on all classes so far, its mean over orders."""
    every = [curves(each["figures"])["all classes so far"]["all"] for each in orders.values()]
    return [(points[0][0], *mean_and_stderr([value for _, value, _ in points])) for points in zip(*every, strict=True)]


def mean_of(orders: Mapping[int, dict[str, Any]], key: str) -> float:
    """Return the mean of a figure over orders."""
    return math.fsum(each["values"][key] for each in orders.values()) / len(orders)
