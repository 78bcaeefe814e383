"""The report's sections on associative recall and on the ablation of HOPE."""

from collections.abc import Sequence
from pathlib import Path

from nested_learning.report.runs import summary_values
from nested_learning.report.text import format_mean, table
from scripts.experiments.capabilities.claims import (
    MIN_ACCURACY,
    MIN_BITS,
    REPRODUCED,
    TABLE_6,
    Verdict,
    judge_difference,
    judge_share,
)
from scripts.experiments.capabilities.plots import plot_differences, plot_pairs
from scripts.experiments.capabilities.results import NONE, PartResults, difference, points, seeds_of
from scripts.experiments.capabilities.trials import FULL, WIDTH


def recall_section(part: PartResults, figures: Path) -> list[str]:
    """Report on associative recall over the number of pairs and the size of the state."""
    evaluations = part.all_runs[0].evaluations
    pairs = sorted(int(name.removeprefix("pairs_")) for name in evaluations)
    data = part.all_runs[0].config["data"]
    chance = 1 / data["num_values"]
    panels, lines = {}, []
    for case in part.cases:
        head = int(case.removeprefix("width"))
        title = f"heads of {head}: state of {WIDTH * head}"
        models = [model for model in part.models if (case, model) in part.runs]
        cells = {(model, str(n)): part.values(case, model, "accuracy", f"pairs_{n}") for model in models for n in pairs}
        panels[title] = cells
        rows = [[model, *(format_mean(cells[model, str(n)], 1, 100) for n in pairs)] for model in models]
        lines += [*table([f"accuracy, %, {title} numbers a layer", *(f"{n} pairs" for n in pairs)], rows), ""]
    plot_pairs(figures / "capabilities_recall.png", panels, pairs, data["num_pairs"], chance)
    return [
        "## Recall by the size of the state",
        "",
        "Pairs of key and value, then all keys again in any order (multi-query associative recall, arXiv 2312.04927). "
        f"Models are trained with {data['min_pairs']} to {data['num_pairs']} pairs and evaluated with {pairs[0]} to "
        f"{pairs[-1]}. Chance is {chance:.1%}. {seeds_of(part)} Layers have width {WIDTH}: with wider heads there are "
        "fewer of them, and the state of heads x width x width numbers is larger.",
        "",
        "![Accuracy against the number of pairs](figures/capabilities_recall.png)",
        "",
        *lines,
        *(verdict.line() for verdict in recall_verdicts(part, pairs)),
        "",
    ]


def recall_verdicts(part: PartResults, pairs: Sequence[int]) -> list[Verdict]:
    """Judge the papers' claims on recall: a KV cache suffices, a larger state helps, and correcting beats adding."""

    def mean_of(case: str, model: str) -> dict[int, float]:
        """Average over the numbers of pairs, seed by seed."""
        return part.by_seed(case, model, "accuracy", [f"pairs_{n}" for n in pairs])

    verdicts = []
    if {"deltanet", "linear_attention"} <= set(part.models):
        for case in part.cases:
            mean, error = difference(mean_of(case, "deltanet"), mean_of(case, "linear_attention"))
            word = judge_difference(mean, error, MIN_ACCURACY)
            claim = f"{case}: deltanet recalls more than linear_attention (arXiv 2406.06484)"
            verdicts.append(Verdict(claim, points(mean, error), word))
    small, large = part.cases[0], part.cases[-1]
    for model in (name for name in part.models if name != "transformer" and small != large):
        mean, error = difference(mean_of(large, model), mean_of(small, model))
        claim = f"{model} recalls more with the larger state (arXiv 2402.18668)"
        verdicts.append(Verdict(claim, points(mean, error), judge_difference(mean, error, MIN_ACCURACY)))
    if "transformer" in part.models:
        trained = part.all_runs[0].config["data"]["num_pairs"]
        values = [
            value
            for case in part.cases
            for n in pairs
            if n <= trained
            for value in part.values(case, "transformer", "accuracy", f"pairs_{n}")
        ]
        claim = f"transformer recalls up to {trained} pairs with any width of its heads (arXiv 2312.04927)"
        verdicts.append(Verdict(claim, f"lowest {min(values):.1%}", judge_share(values, 100.0)))
    return verdicts


def ablation_section(part: PartResults, figures: Path) -> list[str]:
    """Report on HOPE without each of its parts, compared with table 6."""
    (case,) = part.cases
    whole = part.by_seed(case, FULL, "bpb")
    differences, rows, verdicts = {}, [], []
    for model in part.models:
        runs, values = part.runs[case, model], part.by_seed(case, model, "bpb")
        mean, error = difference(values, whole)
        change = NONE if model == FULL else f"{mean:+.4f}" + ("" if error is None else f" ± {error:.4f}")
        sizes = ", ".join(sorted({f"{int(size):,}" for size in summary_values(runs, "parameters")}))
        spent = format_mean(summary_values(runs, "cpu_seconds"), 0)
        rows.append([model, sizes, format_mean(list(values.values()), 4), change, f"{TABLE_6[model]:.2f}", spent])
        if model != FULL:
            differences[model] = (mean, error)
            claim = f"{model} is worse ({TABLE_6[model] - TABLE_6[FULL]:+.2f} perplexity in the paper)"
            verdicts.append(Verdict(claim, f"{change} bits per byte", judge_difference(mean, error, MIN_BITS)))
    plot_differences(figures / "capabilities_ablation.png", differences, "bits per byte above hope")
    config = part.all_runs[0].config
    words = [verdict.word for verdict in verdicts]
    return [
        "## Ablation: HOPE without its parts",
        "",
        f"A small language model on data={config['data']['name']} (bytes, rows of {config['data']['seq_len']}), "
        f"{config['model']['num_layers']} layers of width {config['model']['dim']}. {seeds_of(part)} Differences are "
        "paired by seed: the same rows in the same order. Here HOPE has momentum, as in Table 6 of Nested Learning, "
        "and its query is a fixed projection, as in the text of the paper; in the table the query is adaptive.",
        "",
        "![Bits per byte above HOPE](figures/capabilities_ablation.png)",
        "",
        *table(["", "parameters", "bits per byte", "above hope", "paper, perplexity", "CPU seconds"], rows),
        "",
        *(verdict.line() for verdict in verdicts),
        f"- {words.count(REPRODUCED)} of {len(words)} claims are reproduced",
        "",
    ]
