"""The report on memorizing and a change of domain: every number and every verdict is read from the run directories."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from nested_learning.report import mean_and_stderr, plot_panels
from nested_learning.report.runs import (
    FinishedRun,
    commit_of,
    final_ratios,
    final_values,
    metric_values,
    read_finished_run,
    read_json,
    summary_values,
)
from nested_learning.report.text import format_mean, table, verdict

BASELINE = "transformer"
# thresholds: bits per byte, relative to the baseline, and beyond the training length relative to inside it
MAX_BPB, MAX_ABOVE, MAX_BEYOND = 2.9, 0.04, 0.15
INSIDE, BEYOND = "128-256", "512-1024"
POLICIES = {"online": "perplexity", "frozen": "perplexity_frozen", "memorize": "perplexity_memorize"}
# key of shift.json -> the state before the second half
CONDITIONS = {
    "alone": "no context",
    "read": "the first half was read; the document continues",
    "read and studied": "the first half was read and memorized; the document continues",
    "memory of reading": "the first half was read; a new document starts, memories of mixers stay",
    "memory of study": "the first half was read and memorized; a new document starts, memories stay",
    "memory of another": "control: as above, but another excerpt of the domain was memorized",
    "memory of the other domain": "control: as above, but an excerpt of the other domain was memorized",
}
# key of shift.json -> its name in the tables, where that differs
LABELS = {
    "read": "context",
    "read and studied": "context memorized",
    "memory of reading": "memory after reading",
    "memory of study": "memory after memorizing",
    "memory of another": "memory of another excerpt",
}
DOMAINS = {"books": "new books", "code": "source code, a domain that was not trained on"}
# the loss under the first condition should be below that under the second
CLAIMS = {
    ("read and studied", "read"): "after memorizing the loss on the continuation is lower than after reading",
    ("memory of study", "alone"): "memorizing lowers the loss of the second half after the context is removed",
    (
        "memory of reading",
        "alone",
    ): "memories written by reading lower the loss of the second half after the context is removed",
    (
        "memory of study",
        "memory of another",
    ): "memorizing its own first half helps more than memorizing another excerpt",
}
CONTROL = ("memory of the other domain", "alone")


@dataclass(frozen=True)
class Shift:
    """A run, and the losses on its excerpts: `losses[domain][condition]` has a value an excerpt."""

    run: FinishedRun
    losses: dict[str, Any]


# model -> its runs, one a seed
Shifts = dict[str, list[Shift]]


@dataclass(frozen=True)
class Change:
    """A mean difference over seeds and excerpts, with its standard errors over seeds and over excerpts."""

    mean: float
    over_seeds: float
    over_excerpts: float

    @property
    def error(self) -> float:
        """Return the larger standard error."""
        return max(self.over_seeds, self.over_excerpts)

    @property
    def is_lower(self) -> bool:
        """Return whether the first loss is lower than the second by more than two standard errors."""
        return self.mean < -2 * self.error

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {self.over_seeds:.3f} ± {self.over_excerpts:.3f}"


def write_report(out: Path, path: Path, models: Sequence[str], command: str) -> Path:
    """Write the report on the finished runs in `out` to `path`, its plot into figures/ next to it."""
    shifts: Shifts = {}
    for model in models:
        finished = sorted(out.glob(f"{model}_[0-9]*/shift.json"))
        if finished:
            shifts[model] = [Shift(read_finished_run(each.parent), read_json(each)) for each in finished]
    runs = {model: [shift.run for shift in each] for model, each in shifts.items()}
    figure = path.parent / "figures" / "domain_shift.png"
    figure.parent.mkdir(parents=True, exist_ok=True)
    plot_panels(figure, {model: curves(results) for model, results in runs.items()}, "position, bytes")
    lines = [*header(runs, command), *training(runs), *positions(runs, figure), *rates(out, models)]
    for domain in DOMAINS:
        lines += second_halves(shifts, domain)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def header(runs: Mapping[str, list[FinishedRun]], command: str) -> list[str]:
    """Describe how the runs were made."""
    every = [run for results in runs.values() for run in results]
    first = every[0]
    data, seeds = first.config["data"], sorted({run.config["seed"] for run in every})
    trained_on = ", ".join(Path(each).stem for each in data["path"])
    spent = sum(summary_values(every, "cpu_seconds")) / 60
    return [
        "# Memorizing and a change of domain",
        "",
        f"    {command}",
        "",
        f"Runs at commit {', '.join(sorted({commit_of(run.environment) for run in every}))}, one CPU thread, torch "
        f"{first.environment['packages']['torch']}. Seeds {', '.join(map(str, seeds))}; numbers are means over "
        f"the seeds ± their standard error. {len(every)} byte models of width {first.config['model']['dim']} and "
        f"{first.config['model']['num_layers']} layers are trained on {first.summary['tokens']:,} bytes each, in rows "
        f"of {data['seq_len']}, in {spent:.0f} CPU minutes in total. The books are {trained_on}; the one that fits "
        f"into {data['val_fraction']:.0%} of the data is the validation split. The window of the transformer is "
        f"{runs[BASELINE][0].config['model']['window']} bytes; the other models have no attention.",
        "",
    ]


def training(runs: Mapping[str, list[FinishedRun]]) -> list[str]:
    """Report on training: bits per byte at equal tokens, and beyond the training length."""
    base = fmean(final_values(runs[BASELINE], "val/bpb"))
    rows, lines = [], []
    for model, results in runs.items():
        bpb = final_values(results, "val/bpb")
        spent, curve = summary_values(results, "cpu_seconds"), [run.curve("val/bpb") for run in results]
        sizes = {f"{int(size):,}" for size in summary_values(results, "parameters")}
        rows.append(
            [model, ", ".join(sizes), format_mean(bpb, 3), f"{fmean(bpb) / base - 1:+.1%}", format_mean(spent, 0)]
        )
        falls = all(later.value < sooner.value for each in curve for sooner, later in pairwise(each))
        lines.append(
            verdict(
                f"{model}: at most {max(bpb):.3f} bits per byte after {max(spent):.0f} CPU seconds, "
                f"{'falling' if falls else 'not falling'} at every validation: at most {MAX_BPB}, and falling",
                max(bpb) <= MAX_BPB and falls,
            )
        )
        if model == BASELINE:
            continue
        inside, beyond = (fmean(metric_values(results, "perplexity", f"bpb/{name}")) for name in (INSIDE, BEYOND))
        lines.append(
            verdict(
                f"{model} beyond the training length: {beyond:.3f} at {BEYOND}, {inside:.3f} at {INSIDE}: at most "
                f"{MAX_BEYOND} above",
                beyond <= inside + MAX_BEYOND,
            )
        )
        above = [ratio - 1 for ratio in final_ratios(runs[model], runs[BASELINE], "val/bpb")]
        lines.append(
            verdict(
                f"{model} at equal tokens is {fmean(bpb) / base - 1:+.2%} from the {BASELINE}, paired by seed "
                f"{format_mean(above, 2, 100)} %: at most "
                f"{MAX_ABOVE:.0%} above",
                fmean(bpb) <= (1 + MAX_ABOVE) * base,
            )
        )
    head = ["model", "parameters", "bits per byte, validation", f"compared with {BASELINE}", "CPU seconds"]
    return ["## Training", "", *table(head, rows), "", *lines, ""]


def positions(runs: Mapping[str, list[FinishedRun]], figure: Path) -> list[str]:
    """Report on bits per byte by position with each memory policy."""
    first = next(iter(runs.values()))[0]
    spans = spans_of(first)
    rows, lines = [], []
    for model, results in runs.items():
        for policy, name in POLICIES.items():
            cells = [format_mean(metric_values(results, name, f"bpb/{each}"), 3) for each in spans]
            rows.append([model, policy, *cells, format_mean(metric_values(results, name, "bpb"), 3)])
        for better, worse in (("online", "frozen"), ("memorize", "online")):
            if (model, better) == (BASELINE, "online"):
                continue
            change = differences(results, POLICIES[better], POLICIES[worse])
            mean, error = mean_and_stderr(change)
            lines.append(
                verdict(
                    f"{model}: {better} minus {worse} is {mean:+.4f} ± {error or 0.0:.4f} bits per byte: {better} is "
                    "lower by more than two standard errors",
                    mean < -2 * (error or math.inf),
                )
            )
    pack = first.evaluations["perplexity"]["pack"]
    policy = first.evaluations["perplexity_memorize"]["policy"]
    return [
        "## By position in a new book",
        "",
        f"`evals=perplexity`: {pack['num_texts']} texts of {Path(pack['path']).stem}, bits per byte. With "
        f"memory=memorize the model learns along the text, every {policy['chunk']} bytes, from bytes that it has "
        "already predicted: the levels after the mixers by gradient descent, the memories of mixers as when reading. "
        "Reading writes nothing in a transformer, so frozen equals online. In the other models only the memories, and "
        "short convolutions, connect a token with earlier ones: frozen removes the context.",
        "",
        f"![Bits per byte by position]({figure.parent.name}/{figure.name})",
        "",
        *table(["model", "memory", *spans, "all"], rows),
        "",
        *lines,
        "",
    ]


def rates(out: Path, models: Sequence[str]) -> list[str]:
    """Report on the choice of the learning rate of memorizing."""
    rows = []
    for model in models:
        tried = read_json(out / f"rates_{model}.json")
        for domain in DOMAINS:
            rows.append([model, domain, *(f"{fmean(cost[domain]):.3f}" for cost in tried.values())])
    return [
        "## The learning rate of memorizing",
        "",
        "Bits per byte of second halves after memorizing, on other excerpts than those below, with the first seed. The "
        "best `memory.lr` of each model and domain is used below.",
        "",
        *table(["model", "excerpts", *tried], rows),
        "",
    ]


def second_halves(shifts: Shifts, domain: str) -> list[str]:
    """Report on the second halves of the excerpts of a domain."""
    first = next(iter(shifts.values()))[0].losses
    rows = [
        [
            LABELS.get(name, name),
            description,
            *(format_mean([fmean(each.losses[domain][name]) for each in runs], 3) for runs in shifts.values()),
        ]
        for name, description in CONDITIONS.items()
    ]
    lines, changes = [], []
    for model, runs in shifts.items():
        for (one, other), claim in CLAIMS.items():
            change = compare(runs, domain, one, other)
            changes.append([model, f"{LABELS.get(one, one)} - {LABELS.get(other, other)}", str(change)])
            lines.append(verdict(f"{model}: {claim}", change.is_lower))
        change = compare(runs, domain, *CONTROL)
        changes.append([model, " - ".join(CONTROL), str(change)])
        lines.append(verdict(f"{model}: memorizing the other domain does not help", not change.is_lower))
    picked = {model: runs[0].losses["rates"][domain] for model, runs in shifts.items()}
    return [
        f"## Second halves: {DOMAINS[domain]}",
        "",
        f"{len(first[domain]['alone'])} excerpts, halves of {first['half']:,} bytes, bits per byte of the second half; "
        f"memory.lr {', '.join(f'{rate} ({model})' for model, rate in picked.items())}.",
        "",
        *table(["", "before the second half", *shifts], rows),
        "",
        "Differences, with their standard errors over seeds and over excerpts; a claim holds if the difference is more "
        "than twice the larger standard error:",
        "",
        *table(["model", "", "bits per byte"], changes),
        "",
        *lines,
        "",
    ]


def compare(runs: Sequence[Shift], domain: str, one: str, other: str) -> Change:
    """Return the difference in loss between two conditions, paired by excerpt."""
    pairs = [zip(each.losses[domain][one], each.losses[domain][other], strict=True) for each in runs]
    gaps = [[a - b for a, b in each] for each in pairs]
    by_seed = [fmean(each) for each in gaps]
    by_excerpt = [fmean(each) for each in zip(*gaps, strict=True)]
    errors = [mean_and_stderr(each)[1] for each in (by_seed, by_excerpt)]
    return Change(fmean(by_seed), *(math.inf if error is None else error for error in errors))


def differences(results: Sequence[FinishedRun], one: str, other: str) -> list[float]:
    """Return the difference in bits per byte between two evaluations, by seed."""
    return [
        a - b for a, b in zip(metric_values(results, one, "bpb"), metric_values(results, other, "bpb"), strict=True)
    ]


def spans_of(run: FinishedRun) -> list[str]:
    """Return the spans of positions of evals=perplexity, in order."""
    names = run.evaluations["perplexity"]["metrics"]
    return [name.removeprefix("bpb/") for name in names if name.startswith("bpb/")]


def curves(results: Sequence[FinishedRun]) -> dict[str, list[tuple[float, float, float | None]]]:
    """Return the mean over seeds by position, a line for each policy."""
    return {
        policy: [
            (float(each.partition("-")[2]), *mean_and_stderr(metric_values(results, answer, f"bpb/{each}")))
            for each in spans_of(results[0])
        ]
        for policy, answer in POLICIES.items()
    }
