"""The report on forgetting over five domains: every number is computed from the run directories."""

from collections.abc import Sequence
from pathlib import Path

from nested_learning.evals.protocol import Grid
from nested_learning.report import mean_and_stderr
from nested_learning.report.plots import plot_lines, plot_maps, plot_panels
from scripts.experiments.continual.results import (
    RunResult,
    commits_of,
    format_value,
    paired,
    pearson,
    read_result,
    runs_of,
    seed_mean,
)
from scripts.experiments.continual.trials import MEMORIES, MODELS, PERIODS, TRIED, Run

# two numbers differ if they are this many standard errors apart
NUM_ERRORS = 2
METRICS = ("forgetting", "bwt", "fwt", "learned", "final")


def write_report(runs: Sequence[Run], path: Path, command: str) -> Path:
    """Write the report on `runs` to `path`, its plots into figures/ next to it."""
    results = [each for each in map(read_result, runs) if each is not None]
    figures = path.parent / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    lines = [
        *header(results, command),
        *matrix_section(results, figures),
        *model_section(results),
        *level_section(results, figures),
        *memory_section(results),
        *part_section(results),
        *checks(results),
    ]
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path


def header(results: Sequence[RunResult], command: str) -> list[str]:
    """Describe how the runs were made, and define the metrics."""
    first = results[0]
    commits = commits_of(results)
    spent = sum(each.summary["cpu_seconds"] for each in results)
    seeds = sorted({each.run.seed for each in results})
    return [
        "# Forgetting over a sequence of domains",
        "",
        f"    {command}",
        "",
        f"Commit {commits}; seeds {', '.join(map(str, seeds))}; {len(results)} runs, {spent / 60:.1f} CPU "
        f"minutes of training in total. A run is trained on {first.summary['tokens']:,} bytes, a fifth from each of "
        "five domains, one domain after the other (`experiment=domain_sequence`): "
        f"{', '.join(first.names)}, or these in reverse, with a constant learning rate. R[i][j] is the bits per "
        "byte of held-out rows of domain j with the weights after i domains (`evals=continual`). forgetting: the mean "
        "of R[5][j] minus the lowest R[i][j] since j was learned; bwt: the mean of R[j][j] - R[5][j], negative if "
        "domains were forgotten; fwt: the mean of R[0][j] - R[j-1][j]; learned: the mean of R[j][j]; final: the mean "
        "of R[5][j]. Numbers are means over seeds ± their standard error.",
        "",
        "| model | parameters | CPU seconds a run | overrides |",
        "|---|---|---|---|",
        *(model_line(name, results) for name in MODELS if runs_of(results, name)),
        "",
    ]


def model_line(name: str, results: Sequence[RunResult]) -> str:
    """Return the row of a model: parameters, CPU seconds, overrides."""
    runs = runs_of(results, name)
    seconds = sum(each.summary["cpu_seconds"] for each in runs) / len(runs)
    return f"| {name} | {runs[0].summary['parameters']:,} | {seconds:.0f} | `{' '.join(MODELS[name])}` |"


def matrix_section(results: Sequence[RunResult], figures: Path) -> list[str]:
    """Report on the loss matrices of the Transformer and of HOPE."""
    lines = ["## Loss on each domain after each domain", ""]
    for model in ("transformer", "hope"):
        runs = runs_of(results, model)
        if not runs:
            continue
        names = runs[0].names
        lines += [f"{model}, bits per byte, mean of {len(runs)} seeds:", "", f"| after | {' | '.join(names)} |"]
        lines += ["|---" * (len(names) + 1) + "|"]
        values = [[seed_mean(runs, f"bpb/{stage}/{name}")[0] for name in names] for stage in range(len(names) + 1)]
        for stage, row in enumerate(values):
            lines.append(f"| {names[stage - 1] if stage else 'nothing'} | {' | '.join(f'{v:.2f}' for v in row)} |")
        grid = Grid(
            "domains learned",
            range(len(names) + 1),
            "domain, by its year",
            [name.split("_")[1] for name in names],
            values,
        )
        plot_maps(figures / f"continual_{model}.png", {f"{model}: bits per byte": grid})
        plot_lines(figures / f"continual_curves_{model}.png", curves(runs), ("domains learned", "bits per byte"))
        lines += ["", f"![matrix](figures/continual_{model}.png) ![curves](figures/continual_curves_{model}.png)", ""]
    return lines


def curves(runs: Sequence[RunResult]) -> dict[str, list[tuple[float, float, float | None]]]:
    """Return a line for each domain, over the number of domains learned, from 1 on."""
    names = runs[0].names
    return {
        name: [(float(stage), *seed_mean(runs, f"bpb/{stage}/{name}")) for stage in range(1, len(names) + 1)]
        for name in names
    }


def model_section(results: Sequence[RunResult]) -> list[str]:
    """Compare models and orders."""
    lines = ["## Models and orders", "", f"| model | order | seeds | {' | '.join(METRICS)} | final / joint |"]
    lines += ["|---" * (len(METRICS) + 4) + "|"]
    for model in MODELS:
        for order in ("forward", "reverse"):
            runs = runs_of(results, model, order)
            if runs:
                cells = " | ".join(format_value(seed_mean(runs, metric)) for metric in METRICS)
                lines.append(f"| {model} | {order} | {len(runs)} | {cells} | {normalised(results, runs)} |")
    lines += [
        "",
        "joint: the same model trained on as many bytes of all domains mixed (`data.order=joint`, first seed).",
        "",
    ]
    for order in ("forward", "reverse"):
        lines += compare(results, "hope", "transformer", order)
    return [*lines, *hope_section(results)]


def hope_section(results: Sequence[RunResult]) -> list[str]:
    """Judge whether HOPE forgets less than the Transformer, and list the variants that were tried."""
    gaps = [paired(results, "hope", "transformer", order, "forgetting") for order in ("forward", "reverse")]
    known = [mean_and_stderr(gap) for gap in gaps if len(gap) > 1]
    holds = bool(known) and all(mean < -NUM_ERRORS * (error or 0.0) for mean, error in known)
    first = results[0].run.seed
    lines = [f"HOPE forgets less than the Transformer in every order: {'**yes**' if holds else '**no**'}.", ""]
    tried = [each for name in TRIED for each in runs_of(results, name)]
    if not holds and tried:
        lines += [
            f"Variants that were tried, seed {first}, forward (of each level: drift, and updates in brackets):",
            "",
        ]
        lines += [
            tried_line(each) for each in [*runs_of(results, "transformer")[:1], *runs_of(results, "hope")[:1], *tried]
        ]
        lines.append("")
    return lines


def tried_line(one: RunResult) -> str:
    """Return the forgetting of a run, and the drift of its parts."""
    metrics = one.reports["continual"]["metrics"]
    parts = [key.removeprefix("drift/") for key in metrics if key.startswith("drift/")]
    drifts = ", ".join(
        f"{part} {one.value(f'drift/{part}'):.2f}"
        + (f" ({one.value(f'updates/{part}'):.0f})" if f"updates/{part}" in metrics else "")
        for part in parts
    )
    values = ", ".join(f"{name} {one.value(name):.3f}" for name in ("forgetting", "learned", "final"))
    return f"- {one.run.model}: {values}; {drifts}"


def normalised(results: Sequence[RunResult], runs: Sequence[RunResult]) -> str:
    """Return the final loss as a multiple of that of joint training."""
    joint = runs_of(results, runs[0].run.model, "joint")
    if not joint:
        return ""
    return f"{seed_mean(runs, 'final')[0] / seed_mean(joint, 'final')[0]:.2f}"


def compare(results: Sequence[RunResult], one: str, other: str, order: str) -> list[str]:
    """Compare `one` with `other`, paired by seed."""
    lines = []
    for metric, word in (
        ("forgetting", "forgetting"),
        ("learned", "loss on a domain after learning it"),
        ("final", "final loss"),
    ):
        pairs = paired(results, one, other, order, metric)
        if len(pairs) > 1:
            mean, error = mean_and_stderr(pairs)
            lines.append(
                f"- {order}, {word}: {one} minus {other} is {mean:+.3f} ± {error:.3f} bits per byte over {len(pairs)} "
                f"seeds: {verdict(mean, error or 0.0)}"
            )
    return [*lines, ""] if lines else []


def verdict(mean: float, error: float) -> str:
    """Write whether a difference is lower, higher, or within its errors."""
    if abs(mean) <= NUM_ERRORS * error:
        return f"no significant difference ({NUM_ERRORS} standard errors)"
    return "**lower**" if mean < 0 else "**higher**"


def level_section(results: Sequence[RunResult], figures: Path) -> list[str]:
    """Report on forgetting by the update period of a level."""
    names = [f"levels_{period}" for period in PERIODS]
    by_name = {name: runs_of(results, name) for name in names if runs_of(results, name)}
    if not by_name:
        return []
    lines = [
        "## Forgetting by the update period of a level",
        "",
        "A Transformer whose MLP is two levels of half its width; one is updated every step (1,024 bytes), the other "
        "once in `period` bytes with the mean of its gradients. drift: the distance of the weights from their "
        "initial values, relative to the norm of these.",
        "",
        "| period | seeds | updates | drift slow | drift fast | drift rest | forgetting | learned | final |",
        "|---" * 9 + "|",
    ]
    for name, runs in by_name.items():
        period = name.removeprefix("levels_")
        updates = f"{runs[0].value('updates/slow'):.0f}"
        drifts = " | ".join(format_value(seed_mean(runs, f"drift/{part}")) for part in ("slow", "fast", "rest"))
        cells = " | ".join(format_value(seed_mean(runs, metric)) for metric in ("forgetting", "learned", "final"))
        lines.append(f"| {period} | {len(runs)} | {updates} | {drifts} | {cells} |")
    lines.append("")
    for name in names[1:]:
        lines += compare(results, name, names[0], "forward")
    lines += compare(results, "hope", "hope_fast", "forward")
    for part in ("slow", "fast", "rest"):
        lines += [correlation(by_name, part)]
    # from the slowest to the fastest, on a scale of doublings
    panels = {
        metric: {
            "two levels": [
                (runs[0].value("updates/slow"), *seed_mean(runs, metric)) for runs in reversed(by_name.values())
            ]
        }
        for metric in ("forgetting", "learned", "drift/slow")
    }
    plot_panels(figures / "continual_periods.png", panels, "updates of the slow level")
    return [*lines, "", "![forgetting](figures/continual_periods.png)", ""]


def correlation(by_name: dict[str, list[RunResult]], part: str) -> str:
    """Correlate drift with forgetting over all runs."""
    every = [each for runs in by_name.values() for each in runs]
    x, y = ([each.value(metric) for each in every] for metric in (f"drift/{part}", "forgetting"))
    return f"- over these {len(every)} runs, drift of {part} and forgetting correlate with r = {pearson(x, y):+.2f}"


def memory_section(results: Sequence[RunResult]) -> list[str]:
    """Report on forgetting in memories."""
    lines = [
        "## Forgetting in memories, with fixed weights",
        "",
        "The weights are those after the first domain and do not change; a memory is carried through all five domains "
        "(`evals=continual_memory`). online: the writes while reading; memorize: the domains are memorized.",
        "",
        "| model | memory | seeds | forgetting | bwt | learned | final | writes |",
        "|---" * 8 + "|",
    ]
    for model, overrides in MEMORIES.items():
        runs = [each for each in runs_of(results, model) if "continual_memory" in each.reports]
        for report, words in (("continual_memory", "online"), ("continual_memory_memorize", " ".join(overrides))):
            having = [each for each in runs if report in each.reports]
            if having:
                values = [
                    [each.value(name, report) for each in having] for name in ("forgetting", "bwt", "learned", "final")
                ]
                cells = " | ".join(format_value(mean_and_stderr(column)) for column in values)
                lines.append(f"| {model} | {words} | {len(having)} | {cells} | {writes(having[0], report)} |")
    return [*lines, "", *gains(results)]


def writes(one: RunResult, report: str) -> str:
    """Return the number of writes of each level."""
    metrics = one.reports[report]["metrics"]
    return ", ".join(f"{key.split('/')[1]} {metrics[key]['value']:.0f}" for key in metrics if key.endswith("/writes"))


def gains(results: Sequence[RunResult]) -> list[str]:
    """Report by how much memories lower the loss on a domain, compared with the same weights and empty memories."""
    lines = []
    for model in MEMORIES:
        for kind, report in (("online", "continual_memory"), ("memorize", "continual_memory_memorize")):
            runs = [each for each in runs_of(results, model) if report in each.reports]
            if runs:
                gained = format_value(mean_and_stderr([gain(each, report) for each in runs]))
                lines.append(
                    f"- {model}, {kind}: the loss on a domain is {gained} bits per byte lower right after reading it"
                )
    return [*lines, ""]


def gain(one: RunResult, report: str) -> float:
    """Return how much lower the loss on a domain is right after reading it than with empty memories; mean over "
    "domains."""
    pairs = [(f"bpb/0/{name}", f"bpb/{stage}/{name}") for stage, name in enumerate(one.names, start=1)]
    return sum(one.value(before, report) - one.value(after, report) for before, after in pairs) / len(pairs)


def part_section(results: Sequence[RunResult]) -> list[str]:
    """Report on forgetting over the parts of a book."""
    lines = []
    for model in MODELS:
        runs = runs_of(results, model, "book")
        if runs:
            cells = " | ".join(format_value(seed_mean(runs, metric)) for metric in METRICS)
            lines.append(f"| {model} | {len(runs)} | {cells} |")
    if not lines:
        return []
    return [
        "## One book in five parts",
        "",
        "`experiment=chronological`: Les Misérables in order, each part a domain.",
        "",
        f"| model | seeds | {' | '.join(METRICS)} |",
        "|---" * (len(METRICS) + 2) + "|",
        *lines,
        "",
    ]


def checks(results: Sequence[RunResult]) -> list[str]:
    """Check that matrices are complete, that enough is forgotten, and that a repeated run gives the same metrics."""
    lines = ["## Checks of the evaluation", ""]
    for model in ("transformer", "hope"):
        for order in ("forward", "reverse"):
            lines += [matrix_check(model, order, runs) for runs in [runs_of(results, model, order)] if runs]
    for each in results:
        if each.run.again:
            first = next(one for one in runs_of(results, each.run.model) if one.run.seed == each.run.seed)
            is_same = first.reports["continual"]["metrics"] == each.reports["continual"]["metrics"]
            word = "**identical** metrics" if is_same else "**different** metrics"
            lines.append(f"- {first.run.name}, trained and evaluated again with the same seed: {word}")
    return lines


def matrix_check(model: str, order: str, runs: Sequence[RunResult]) -> str:
    """Check that the matrices are complete, and that enough was forgotten for the comparison to mean something."""
    names = runs[0].names
    cells = len(names) * (len(names) + 1)
    counted = [sum(key.startswith("bpb/") for key in each.reports["continual"]["metrics"]) for each in runs]
    counts = [
        sum(each.value(key) > NUM_ERRORS * each.stderr(key) for key in (f"forgetting/{name}" for name in names[:-1]))
        for each in runs
    ]
    whole = "complete" if set(counted) == {cells} else "NOT complete"
    enough = "**yes**" if min(counts) >= 3 else "**no**"
    return (
        f"- {model}, {order}: the matrix of {cells} cells is {whole}; {', '.join(map(str, counts))} of "
        f"{len(names) - 1} earlier domains were forgotten (by more than {NUM_ERRORS} standard errors), by seed; at "
        f"least 3: {enough}"
    )
