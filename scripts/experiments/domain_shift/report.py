"""The report on memorizing and a change of domain: every number and every verdict is read from the run directories."""

import json
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
    summary_values,
)
from nested_learning.report.text import format_mean, table, verdict

BASELINE = "transformer"
# what counts as reached: bits per byte, above those of the baseline, and above those inside the training length
MAX_BPB, MAX_ABOVE, MAX_BEYOND = 2.9, 0.04, 0.15
INSIDE, BEYOND = "128-256", "512-1024"
POLICIES = {"online": "perplexity", "frozen": "perplexity_frozen", "memorize": "perplexity_memorize"}
CONDITIONS = {
    "alone": "nothing was read before",
    "read": "the first half was read, the text goes on",
    "read and studied": "the first half was read and studied, the text goes on",
    "memory of reading": "the first half was read; another text begins, memories of mixers stay",
    "memory of study": "the first half was read and studied; another text begins, what was memorised stays",
    "memory of another": "control: as before, but it was an excerpt of another place",
    "memory of the other domain": "control: as before, but it was an excerpt of the other domain",
}
DOMAINS = {"books": "books that were not trained on", "code": "source code, of which nothing was trained on"}
# what is claimed: study makes a text cheaper that goes on, and one that begins anew; the wrong domain is no help
CLAIMS = {
    ("read and studied", "read"): "after study the text that goes on is cheaper than after reading alone",
    ("memory of study", "alone"): "what was studied and is gone makes the second half cheaper than nothing does",
    ("memory of reading", "alone"): "what reading alone leaves in memories makes the second half cheaper",
    ("memory of study", "memory of another"): "study of its own first half is worth more than that of another text",
}
CONTROL = ("memory of the other domain", "alone")


@dataclass(frozen=True)
class Shift:
    """A run and what was found on its excerpts."""

    result: FinishedRun
    found: dict[str, Any]


# by model, the runs that differ in their seed only
Shifts = dict[str, list[Shift]]


@dataclass(frozen=True)
class Change:
    """A mean difference over seeds and excerpts, and its standard errors over either."""

    mean: float
    over_seeds: float
    over_excerpts: float

    @property
    def error(self) -> float:
        """Return the larger standard error."""
        return max(self.over_seeds, self.over_excerpts)

    @property
    def is_cheaper(self) -> bool:
        """Say whether the first costs less than the second, by more than two standard errors."""
        return self.mean < -2 * self.error

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {self.over_seeds:.3f} ± {self.over_excerpts:.3f}"


def write_report(out: Path, path: Path, models: Sequence[str], command: str) -> Path:
    """Write the report on the finished runs in `out` to `path`, its figure into the folder figures/ beside it."""
    shifts: Shifts = {}
    for model in models:
        finished = sorted(out.glob(f"{model}_[0-9]*/shift.json"))
        if finished:
            shifts[model] = [Shift(read_finished_run(each.parent), _json(each)) for each in finished]
    runs = {model: [shift.result for shift in found] for model, found in shifts.items()}
    figure = path.parent / "figures" / "domain_shift.png"
    figure.parent.mkdir(parents=True, exist_ok=True)
    plot_panels(figure, {model: curves(results) for model, results in runs.items()}, "position, bytes")
    lines = [*header(runs, command), *training(runs), *positions(runs, figure), *rates(out, models)]
    for domain in DOMAINS:
        lines += second_halves(shifts, domain)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def header(runs: Mapping[str, list[FinishedRun]], command: str) -> list[str]:
    """Say how the runs were made."""
    every = [run for results in runs.values() for run in results]
    first = every[0]
    data, seeds = first.config["data"], sorted({run.config["seed"] for run in every})
    trained_on = ", ".join(Path(each).stem for each in data["path"])
    spent = sum(summary_values(every, "cpu_seconds")) / 60
    return [
        "# Study and a change of domain",
        "",
        f"    {command}",
        "",
        f"Runs at commit {', '.join(sorted({commit_of(run.environment) for run in every}))}, one CPU thread, torch "
        f"{first.environment['packages']['torch']}. Seeds {', '.join(map(str, seeds))}; figures are means over "
        f"the seeds ± their standard error. {len(every)} byte models of width {first.config['model']['dim']} and "
        f"{first.config['model']['num_layers']} layers read {first.summary['tokens']:,} bytes each, in rows of "
        f"{data['seq_len']}, in {spent:.0f} CPU minutes together: of {trained_on} (that which fits into "
        f"{data['val_fraction']:.0%} of all is kept for validation). Attention of the transformer sees "
        f"{runs[BASELINE][0].config['model']['window']} bytes in each layer; the others have no attention.",
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
                f"{'falling' if falls else 'not falling'} at every validation: {MAX_BPB} or less, and falling",
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
                f"{model} at equal tokens is {fmean(bpb) / base - 1:+.2%} from the {BASELINE}, seed by seed "
                f"{format_mean(above, 2, 100)} %: at most "
                f"{MAX_ABOVE:.0%} above",
                fmean(bpb) <= (1 + MAX_ABOVE) * base,
            )
        )
    head = ["model", "parameters", "bits per byte, validation", f"against {BASELINE}", "CPU seconds"]
    return ["## Training", "", *table(head, rows), "", *lines, ""]


def positions(runs: Mapping[str, list[FinishedRun]], figure: Path) -> list[str]:
    """Report on bits per byte by position under each policy."""
    first = next(iter(runs.values()))[0]
    stretches = stretches_of(first)
    rows, lines = [], []
    for model, results in runs.items():
        for policy, answer in POLICIES.items():
            figures = [format_mean(metric_values(results, answer, f"bpb/{each}"), 3) for each in stretches]
            rows.append([model, policy, *figures, format_mean(metric_values(results, answer, "bpb"), 3)])
        for better, worse in (("online", "frozen"), ("memorize", "online")):
            if (model, better) == (BASELINE, "online"):
                continue
            change = differences(results, POLICIES[better], POLICIES[worse])
            mean, error = mean_and_stderr(change)
            lines.append(
                verdict(
                    f"{model}: {better} minus {worse} is {mean:+.4f} ± {error or 0.0:.4f} bits per byte: {better} is "
                    "cheaper by more than two standard errors",
                    mean < -2 * (error or math.inf),
                )
            )
    asked_of = first.evaluations["perplexity"]["pack"]
    policy = first.evaluations["perplexity_memorize"]["policy"]
    return [
        "## By position in a new book",
        "",
        f"`evals=perplexity`: {asked_of['num_texts']} texts of {Path(asked_of['path']).stem}, bits per byte. Memorize "
        f"learns along the text, every {policy['chunk']} bytes, from what it has predicted: the levels after the "
        "mixers by gradient descent, memories of mixers as ever. A transformer has nothing that reading writes: frozen "
        "is online. Of the others memories are all that connects a token with those before it, but for the few that a "
        "convolution sees: frozen takes the context away.",
        "",
        f"![Bits per byte by position]({figure.parent.name}/{figure.name})",
        "",
        *table(["model", "memory", *stretches, "all"], rows),
        "",
        *lines,
        "",
    ]


def rates(out: Path, models: Sequence[str]) -> list[str]:
    """Report on how the rate of study was chosen."""
    rows = []
    for model in models:
        tried = _json(out / f"rates_{model}.json")
        for domain in DOMAINS:
            rows.append([model, domain, *(f"{fmean(cost[domain]):.3f}" for cost in tried.values())])
    return [
        "## The rate of study",
        "",
        "Bits per byte of second halves after study, on other excerpts than those below, with the first seed; for each "
        "model and domain the best `memory.lr` was taken.",
        "",
        *table(["model", "excerpts", *tried], rows),
        "",
    ]


def second_halves(shifts: Shifts, domain: str) -> list[str]:
    """Report on the second halves of the excerpts of a domain."""
    first = next(iter(shifts.values()))[0].found
    rows = [
        [
            name,
            what,
            *(format_mean([fmean(each.found[domain][name]) for each in found], 3) for found in shifts.values()),
        ]
        for name, what in CONDITIONS.items()
    ]
    lines, changes = [], []
    for model, found in shifts.items():
        for (one, other), claim in CLAIMS.items():
            change = compare(found, domain, one, other)
            changes.append([model, f"{one} - {other}", str(change)])
            lines.append(verdict(f"{model}: {claim}", change.is_cheaper))
        change = compare(found, domain, *CONTROL)
        changes.append([model, " - ".join(CONTROL), str(change)])
        lines.append(verdict(f"{model}: study of the other domain is no help", not change.is_cheaper))
    picked = {model: found[0].found["rates"][domain] for model, found in shifts.items()}
    return [
        f"## Second halves: {DOMAINS[domain]}",
        "",
        f"{len(first[domain]['alone'])} excerpts, halves of {first['half']:,} bytes, bits per byte of the second; "
        f"memory.lr {', '.join(f'{rate} ({model})' for model, rate in picked.items())}.",
        "",
        *table(["", "before the second half", *shifts], rows),
        "",
        "Differences, with their standard errors over seeds and over excerpts; a claim holds where a difference is "
        "more than twice the larger of them:",
        "",
        *table(["model", "", "bits per byte"], changes),
        "",
        *lines,
        "",
    ]


def compare(found: Sequence[Shift], domain: str, one: str, other: str) -> Change:
    """Return how much more one condition costs than another, excerpt by excerpt."""
    pairs = [zip(each.found[domain][one], each.found[domain][other], strict=True) for each in found]
    table_of = [[a - b for a, b in each] for each in pairs]
    by_seed = [fmean(each) for each in table_of]
    by_excerpt = [fmean(each) for each in zip(*table_of, strict=True)]
    errors = [mean_and_stderr(each)[1] for each in (by_seed, by_excerpt)]
    return Change(fmean(by_seed), *(math.inf if error is None else error for error in errors))


def differences(results: Sequence[FinishedRun], one: str, other: str) -> list[float]:
    """Return the difference of two answers in bits per byte, seed by seed."""
    return [
        a - b for a, b in zip(metric_values(results, one, "bpb"), metric_values(results, other, "bpb"), strict=True)
    ]


def stretches_of(run: FinishedRun) -> list[str]:
    """Return the names of the stretches that were reported on, in order."""
    names = run.evaluations["perplexity"]["metrics"]
    return [name.removeprefix("bpb/") for name in names if name.startswith("bpb/")]


def curves(results: Sequence[FinishedRun]) -> dict[str, list[tuple[float, float, float | None]]]:
    """Return the mean over seeds by position, a line for each policy."""
    return {
        policy: [
            (float(each.partition("-")[2]), *mean_and_stderr(metric_values(results, answer, f"bpb/{each}")))
            for each in stretches_of(results[0])
        ]
        for policy, answer in POLICIES.items()
    }


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
