"""The report on the first runs: every number and every verdict is read from the run directories."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from nested_learning.report.runs import (
    FinishedRun,
    describe_origin,
    final_ratios,
    final_values,
    metric_values,
    summary_values,
)
from nested_learning.report.text import format_mean, table, verdict
from scripts.experiments.first_run.plots import plot_parity, plot_positions, plot_recall, plot_training
from scripts.experiments.first_run.results import Models, read_part

BASELINE = "transformer"
# thresholds of the verdicts: fractions, and CPU seconds of training
MAX_DEVIATION, MAX_ABOVE = 0.05, 0.02
RECALL, RECALL_FAR, RECALL_SECONDS = 0.95, 0.90, 180
PARITY, PARITY_FAILS, PARITY_SECONDS = 0.90, 0.20, 300


def write_report(out: Path, path: Path) -> Path:
    """Write the report on the runs in `out` to `path`, its plots into figures/ next to it."""
    figures = path.parent / "figures"
    parts = {part: read_part(out, part) for part in ("text", "recall", "parity")}
    sections = {"text": text_section, "recall": recall_section, "parity": parity_section}
    lines = header(out, [run for models in parts.values() for runs in models.values() for run in runs])
    for part, models in parts.items():
        if models:
            lines += sections[part](models, figures)
    figures.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def header(out: Path, runs: Sequence[FinishedRun]) -> list[str]:
    """Describe how and where the runs were made."""
    commands, origin = describe_origin(out, runs)
    seeds = sorted({run.config["seed"] for run in runs})
    return [
        "# First run",
        "",
        *commands,
        "",
        f"{origin} Seeds {', '.join(map(str, seeds))}; numbers are means over the seeds ± their standard "
        "error. CPU seconds are those of training, without validation and start-up.",
        "",
    ]


def text_section(models: Models, figures: Path) -> list[str]:
    """Report on language modelling: bits per byte at equal tokens and parameters, and by position."""
    first = models[BASELINE][0]
    data, seq_len = first.config["data"], first.config["data"]["seq_len"]
    buckets = position_buckets(first)
    plot_training(figures / "first_run_text.png", models, "val/bpb", "validation, bits per byte")
    plot_positions(figures / "first_run_positions.png", models, buckets, seq_len)
    rows = []
    for model, runs in models.items():
        sizes = {f"{int(size):,}" for size in summary_values(runs, "parameters")}
        rates = [
            tokens / spent
            for tokens, spent in zip(*(summary_values(runs, k) for k in ("tokens", "cpu_seconds")), strict=True)
        ]
        bpb, ratio = (
            format_mean(final_values(runs, "val/bpb"), 3),
            format_mean(final_ratios(runs, models[BASELINE], "val/bpb"), 3),
        )
        rows.append(
            [
                model,
                ", ".join(sizes),
                bpb,
                ratio,
                format_mean(summary_values(runs, "cpu_seconds"), 0),
                format_mean(rates, 0),
            ]
        )
    by_position = [
        [model, *(format_mean(metric_values(runs, "perplexity", f"bpb/{low}-{high}"), 3) for low, high in buckets)]
        for model, runs in models.items()
    ]
    return [
        f"## Text: data={data['name']}",
        "",
        f"{first.summary['step']} steps of {data['batch_size']} rows of {seq_len} tokens, "
        f"tokenizer={data['tokenizer']}, optim={first.config['optim']['name']}; validation on {data['val_rows']} rows "
        "of other files.",
        "",
        "How the settings were chosen: all models share one set of learning rates, of which only Muon's was "
        "tuned (3e-3 and 1e-2, on the Transformer). The layer of hope, the initial gates of the memories and "
        "the chunk were chosen by short runs with seeds 0 and 1 on this same data; the Transformer got no "
        "such search. The comparison therefore favours the memories, and these rows are not an untouched test "
        "set.",
        "",
        "![Validation against tokens and CPU seconds](figures/first_run_text.png)",
        "",
        *table(["model", "parameters", "bits per byte", f"x {BASELINE}", "CPU seconds", "tokens per CPU second"], rows),
        "",
        f"Bits per byte by position, on rows of {buckets[-1][1]} tokens; standard errors are over seeds:",
        "",
        "![Bits per byte by position](figures/first_run_positions.png)",
        "",
        *table(["model", *(f"{low}-{high}" for low, high in buckets)], by_position),
        "",
        *text_verdicts(models, buckets, seq_len),
        "",
    ]


def text_verdicts(models: Models, buckets: Sequence[tuple[int, int]], seq_len: int) -> list[str]:
    """Judge parameters, tokens, bits per byte, and what happens beyond the training length."""
    base = summary_values(models[BASELINE], "parameters")[0]
    deviations = {model: summary_values(runs, "parameters")[0] / base - 1 for model, runs in models.items()}
    model = max(deviations, key=lambda name: abs(deviations[name]))
    tokens = sorted({value for runs in models.values() for value in summary_values(runs, "tokens")})
    lines = [
        verdict(
            f"parameters differ from the {BASELINE}'s by {abs(deviations[model]):.1%} at most ({model}): within "
            f"{MAX_DEVIATION:.0%}",
            abs(deviations[model]) <= MAX_DEVIATION,
        ),
        verdict(f"every run is trained on {' or '.join(f'{n:,.0f}' for n in tokens)} tokens: equal", len(tokens) == 1),
    ]
    for model in (name for name in models if name != BASELINE):
        above = fmean(final_ratios(models[model], models[BASELINE], "val/bpb")) - 1
        side = f"{abs(above):.1%} {'above' if above > 0 else 'below'} the {BASELINE}"
        lines.append(
            verdict(f"{model} is {side} at equal tokens: within {MAX_ABOVE:.0%} or better", above <= MAX_ABOVE)
        )
    inside = next(bucket for bucket in buckets if bucket[1] == seq_len)
    between = " minus ".join(f"{low}-{high}" for low, high in (buckets[-1], inside))
    for model, runs in models.items():
        change, error = change_beyond(runs, inside, buckets[-1])
        gets_worse = change > 2 * error
        claim = "gets worse" if model.endswith(("transformer", "attention")) else "does not get worse"
        lines.append(
            verdict(
                f"{model} beyond the training length: {between} is {change:+.3f} bits per byte "
                f"(standard error over rows {error:.3f}): {claim}",
                gets_worse == (claim == "gets worse"),
            )
        )
    return lines


def position_buckets(run: FinishedRun) -> list[tuple[int, int]]:
    """Return the positions [start, end) that evals=perplexity reported on, in order."""
    names = [name.removeprefix("bpb/") for name in run.evaluations["perplexity"]["metrics"] if name.startswith("bpb/")]
    return sorted((int(name.partition("-")[0]), int(name.partition("-")[2])) for name in names)


def change_beyond(
    runs: Sequence[FinishedRun], inside: tuple[int, int], outside: tuple[int, int]
) -> tuple[float, float]:
    """Return the rise of the bits per byte from one bucket to another, and its standard error over rows.

    All seeds read the same rows, so more seeds do not reduce this error.
    """
    names = [f"bpb/{low}-{high}" for low, high in (outside, inside)]
    far, near = (fmean(metric_values(runs, "perplexity", name)) for name in names)
    squares = [fmean(run.metric("perplexity", name)["stderr"] ** 2 for run in runs) for name in names]
    return far - near, math.sqrt(sum(squares))


def recall_section(models: Models, figures: Path) -> list[str]:
    """Report on associative recall across a gap."""
    gaps = sorted(int(name.removeprefix("gap_")) for name in models["hope"][0].evaluations if name.startswith("gap_"))
    data = models["hope"][0].config["data"]
    chance, window = 1 / data["num_values"], models[BASELINE][0].config["model"]["window"]
    seen = models[BASELINE][0].config["model"]["num_layers"] * (window - 1)
    plot_recall(figures / "first_run_recall.png", models, gaps, chance)
    rows = [
        [
            model,
            *(format_mean(metric_values(runs, f"gap_{gap}", "accuracy"), 1, 100) for gap in gaps),
            format_mean(metric_values(runs, "frozen", "accuracy"), 1, 100),
            format_mean(summary_values(runs, "cpu_seconds"), 0),
        ]
        for model, runs in models.items()
    ]
    rows.append(["chance", *(f"{100 * chance:.1f}" for _ in gaps), f"{100 * chance:.1f}", ""])
    head = ["accuracy, %", *(f"gap {gap}" for gap in gaps), f"gap {data['gap']}, memory=frozen", "CPU seconds"]
    return [
        "## Recall: answers outside the window",
        "",
        f"{data['num_pairs']} pairs of key and value, {data['gap']} tokens of noise, then the keys again. With a "
        f"window of {window} the {BASELINE} sees {seen} tokens back, so it cannot answer. Models are trained for "
        f"{models['hope'][0].summary['step']} steps at gap {data['gap']}; the other gaps are evaluated without "
        "training. With memory=frozen the memories are not written: the accuracy that remains does not come from "
        "memory. The number of steps was chosen with regard to the long gaps: trained longer, hope keeps its accuracy "
        "at the trained gap and at four times it, and loses more at the longest.",
        "",
        "![Accuracy against the gap and CPU seconds](figures/first_run_recall.png)",
        "",
        *table(head, rows),
        "",
        *recall_verdicts(models, data["gap"], chance),
        "",
    ]


def recall_verdicts(models: Models, gap: int, chance: float) -> list[str]:
    """Judge the memories at the training gap and at four times it, and the baseline at chance."""
    lines = []
    for model in (name for name in models if name != BASELINE):
        lines.append(reaches(models[model], model, f"gap_{gap}", "accuracy", RECALL, RECALL_SECONDS))
        lines.append(reaches(models[model], model, f"gap_{4 * gap}", "accuracy", RECALL_FAR, RECALL_SECONDS))
        frozen = fmean(metric_values(models[model], "frozen", "accuracy"))
        online = fmean(metric_values(models[model], f"gap_{gap}", "accuracy"))
        claim = f"{model} has {frozen:.1%} with its memory frozen and {online:.1%} with writes: a gain of"
        lines.append(verdict(f"{claim} {online - frozen:.1%}, at least 50%", online - frozen >= 0.5))
    runs = models[BASELINE]
    accuracy = fmean(metric_values(runs, f"gap_{gap}", "accuracy"))
    data = runs[0].config["data"]
    # every key is queried unless the task limits their number; values are independent, so answers are too
    num_queries = data["num_pairs"] if data["num_queries"] is None else data["num_queries"]
    n = num_queries * sum(run.metric(f"gap_{gap}", "accuracy")["n"] for run in runs)
    bound = chance + 3 * math.sqrt(chance * (1 - chance) / n)
    claim = f"{BASELINE} at gap {gap}: {accuracy:.1%} of {n:,} answers, chance plus 3 standard errors is {bound:.1%}"
    return [*lines, verdict(f"{claim}: at chance", accuracy <= bound)]


def parity_section(models: Models, figures: Path) -> list[str]:
    """Report on parity at trained and longer lengths."""
    first = models["hope"][0]
    names = sorted((n for n in first.evaluations if n.startswith("length_")), key=lambda n: int(n.split("_")[1]))
    lengths = {name: name.removeprefix("length_").replace("_", "-") for name in names}
    plot_parity(figures / "first_run_parity.png", models, lengths)
    rows = [
        [
            model,
            *(format_mean(metric_values(runs, name, "sequence_accuracy"), 1, 100) for name in names),
            format_mean(summary_values(runs, "cpu_seconds"), 0),
        ]
        for model, runs in models.items()
    ]
    data = first.config["data"]
    trained = f"length_{data['min_length']}_{data['max_length']}"
    longer = next(name for name in names if name != trained)
    fails = fmean(metric_values(models[BASELINE], longer, "sequence_accuracy"))
    return [
        "## Parity",
        "",
        f"Rows of {lengths[trained]} random bits; a row is right if the parity is at every position. "
        f"{first.summary['step']} steps of {data['batch_size']} rows; longer rows are evaluated without training.",
        "",
        "![Sequence accuracy by length](figures/first_run_parity.png)",
        "",
        *table(["sequence accuracy, %", *(f"length {name}" for name in lengths.values()), "CPU seconds"], rows),
        "",
        reaches(models["hope"], "hope", trained, "sequence_accuracy", PARITY, PARITY_SECONDS),
        verdict(
            f"{BASELINE} at length {lengths[longer]}: {fails:.1%}; fails there (at most {PARITY_FAILS:.0%})",
            fails <= PARITY_FAILS,
        ),
        "",
    ]


def reaches(runs: Sequence[FinishedRun], model: str, evaluation: str, name: str, least: float, seconds: float) -> str:
    """Judge whether every run has at least `least`, and was trained within `seconds` of CPU time."""
    values, spent = metric_values(runs, evaluation, name), max(summary_values(runs, "cpu_seconds"))
    enough = sum(value >= least for value in values)
    where = evaluation.replace("_", " ", 1).replace("_", "-")
    return verdict(
        f"{model} at {where}: {enough} of {len(values)} seeds reach {least:.0%} (lowest {min(values):.1%}), the "
        f"slowest after {spent:.0f} CPU seconds: all, within {seconds:.0f}",
        enough == len(values) and spent <= seconds,
    )
