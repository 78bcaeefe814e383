"""The report on forgetting over five domains: every number is computed from the run directories."""

from collections.abc import Sequence
from pathlib import Path

from nested_learning.evals.protocol import Grid
from nested_learning.report import mean_and_stderr
from nested_learning.report.plots import plot_lines, plot_maps, plot_panels
from scripts.experiments.continual.results import Found, commits_of, of, over, paired, pearson, read, shown
from scripts.experiments.continual.trials import MEMORIES, MODELS, PERIODS, TRIED, Run

# by so many standard errors two numbers are apart
NUM_ERRORS = 2
FIGURES = ("forgetting", "bwt", "fwt", "learned", "final")


def write_report(runs: Sequence[Run], path: Path, command: str) -> Path:
    """Write the report on `runs` to `path`, its figures into the folder figures/ beside it."""
    found = [each for each in map(read, runs) if each is not None]
    figures = path.parent / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    lines = [
        *header(found, command),
        *matrix_section(found, figures),
        *model_section(found),
        *level_section(found, figures),
        *memory_section(found),
        *part_section(found),
        *acceptance(found),
    ]
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path


def header(found: Sequence[Found], command: str) -> list[str]:
    """Say how the runs were made, and what is measured."""
    first = found[0]
    commits = commits_of(found)
    spent = sum(each.summary["cpu_seconds"] for each in found)
    seeds = sorted({each.run.seed for each in found})
    return [
        "# What is forgotten over a sequence of domains",
        "",
        f"    {command}",
        "",
        f"Commit {commits}; seeds {', '.join(map(str, seeds))}; {len(found)} runs, {spent / 60:.1f} CPU "
        f"minutes of training in all. A run reads {first.summary['tokens']:,} bytes, as many of each of five domains, "
        "one domain after the other (`experiment=domain_sequence`): "
        f"{', '.join(first.names)}, or these in reverse; the rate of learning stays as it is. R[i][j] is the bits per "
        "byte of held-out rows of domain j with the weights after i domains (`evals=continual`). Forgetting of j is "
        "R[5][j] less its least since j was learned; bwt the mean of R[j][j] - R[5][j], below 0 where domains were "
        "forgotten; fwt the mean of R[0][j] - R[j-1][j]; learned the mean of R[j][j], final of R[5][j]. Figures are "
        "means over seeds ± their standard error.",
        "",
        "| model | parameters | CPU s a run | overrides |",
        "|---|---|---|---|",
        *(model_line(name, found) for name in MODELS if of(found, name)),
        "",
    ]


def model_line(name: str, found: Sequence[Found]) -> str:
    """Say what a model is, and costs."""
    runs = of(found, name)
    seconds = sum(each.summary["cpu_seconds"] for each in runs) / len(runs)
    return f"| {name} | {runs[0].summary['parameters']:,} | {seconds:.0f} | `{' '.join(MODELS[name])}` |"


def matrix_section(found: Sequence[Found], figures: Path) -> list[str]:
    """Show the matrix of the Transformer and of HOPE."""
    lines = ["## The matrix", ""]
    for model in ("transformer", "hope"):
        runs = of(found, model)
        if not runs:
            continue
        names = runs[0].names
        lines += [f"{model}, bits per byte, mean of {len(runs)} seeds:", "", f"| after | {' | '.join(names)} |"]
        lines += ["|---" * (len(names) + 1) + "|"]
        values = [[over(runs, f"bpb/{stage}/{name}")[0] for name in names] for stage in range(len(names) + 1)]
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


def curves(runs: Sequence[Found]) -> dict[str, list[tuple[float, float, float | None]]]:
    """Return a line for each domain, over the domains that were learned, without the beginning."""
    names = runs[0].names
    return {
        name: [(float(stage), *over(runs, f"bpb/{stage}/{name}")) for stage in range(1, len(names) + 1)]
        for name in names
    }


def model_section(found: Sequence[Found]) -> list[str]:
    """Compare models and orders."""
    lines = ["## Models and orders", "", f"| model | order | seeds | {' | '.join(FIGURES)} | final / joint |"]
    lines += ["|---" * (len(FIGURES) + 4) + "|"]
    for model in MODELS:
        for order in ("forward", "reverse"):
            runs = of(found, model, order)
            if runs:
                cells = " | ".join(shown(over(runs, figure)) for figure in FIGURES)
                lines.append(f"| {model} | {order} | {len(runs)} | {cells} | {normalised(found, runs)} |")
    lines += [
        "",
        "Joint is the same model after as many bytes of all domains at once (`data.order=joint`, first seed).",
        "",
    ]
    for order in ("forward", "reverse"):
        lines += compared(found, "hope", "transformer", order)
    return [*lines, *hope_section(found)]


def hope_section(found: Sequence[Found]) -> list[str]:
    """Say whether HOPE forgets less than the Transformer, and what was tried that it might."""
    gaps = [paired(found, "hope", "transformer", order, "forgetting") for order in ("forward", "reverse")]
    known = [mean_and_stderr(gap) for gap in gaps if len(gap) > 1]
    holds = bool(known) and all(mean < -NUM_ERRORS * (error or 0.0) for mean, error in known)
    first = found[0].run.seed
    lines = [f"HOPE forgets less than the Transformer in every order: {'**yes**' if holds else '**no**'}.", ""]
    tried = [each for name in TRIED for each in of(found, name)]
    if not holds and tried:
        lines += [f"Tried for it, with seed {first}, forward (levels: drift, updates):", ""]
        lines += [tried_line(each) for each in [*of(found, "transformer")[:1], *of(found, "hope")[:1], *tried]]
        lines.append("")
    return lines


def tried_line(one: Found) -> str:
    """Say what a run forgot, and how far its parts went."""
    metrics = one.reports["continual"]["metrics"]
    parts = [key.removeprefix("drift/") for key in metrics if key.startswith("drift/")]
    far = ", ".join(
        f"{part} {one.value(f'drift/{part}'):.2f}"
        + (f" ({one.value(f'updates/{part}'):.0f})" if f"updates/{part}" in metrics else "")
        for part in parts
    )
    figures = ", ".join(f"{name} {one.value(name):.3f}" for name in ("forgetting", "learned", "final"))
    return f"- {one.run.model}: {figures}; {far}"


def normalised(found: Sequence[Found], runs: Sequence[Found]) -> str:
    """Return what the domains cost at the end, as a multiple of what they cost who learned them together."""
    joint = of(found, runs[0].run.model, "joint")
    if not joint:
        return ""
    return f"{over(runs, 'final')[0] / over(joint, 'final')[0]:.2f}"


def compared(found: Sequence[Found], one: str, other: str, order: str) -> list[str]:
    """Say by how much `one` forgets less than `other`, seed by seed."""
    lines = []
    for figure, word in (
        ("forgetting", "forgetting"),
        ("learned", "what domains cost when learned"),
        ("final", "at the end"),
    ):
        pairs = paired(found, one, other, order, figure)
        if len(pairs) > 1:
            mean, error = mean_and_stderr(pairs)
            lines.append(
                f"- {order}, {word}: {one} less {other} is {mean:+.3f} ± {error:.3f} bits per byte over {len(pairs)} "
                f"seeds: {verdict(mean, error or 0.0)}"
            )
    return [*lines, ""] if lines else []


def verdict(mean: float, error: float) -> str:
    """Say which is lower, if they are apart."""
    if abs(mean) <= NUM_ERRORS * error:
        return f"not apart ({NUM_ERRORS} standard errors)"
    return "**lower**" if mean < 0 else "**higher**"


def level_section(found: Sequence[Found], figures: Path) -> list[str]:
    """Show forgetting against the period of a level."""
    names = [f"levels_{period}" for period in PERIODS]
    runs = {name: of(found, name) for name in names if of(found, name)}
    if not runs:
        return []
    lines = [
        "## Forgetting and the clocks of levels",
        "",
        "A Transformer whose MLP is two levels of half its width; one is updated every step (1,024 bytes), the other "
        "once in `period` bytes with the mean of its gradients. drift: how far weights went from where they began, "
        "as a share of their norm there.",
        "",
        "| period | seeds | updates | drift slow | drift fast | drift rest | forgetting | learned | final |",
        "|---" * 9 + "|",
    ]
    for name, here in runs.items():
        period = name.removeprefix("levels_")
        updates = f"{here[0].value('updates/slow'):.0f}"
        drifts = " | ".join(shown(over(here, f"drift/{part}")) for part in ("slow", "fast", "rest"))
        cells = " | ".join(shown(over(here, figure)) for figure in ("forgetting", "learned", "final"))
        lines.append(f"| {period} | {len(here)} | {updates} | {drifts} | {cells} |")
    lines.append("")
    for name in names[1:]:
        lines += compared(found, name, names[0], "forward")
    lines += compared(found, "hope", "hope_fast", "forward")
    for part in ("slow", "fast", "rest"):
        lines += [correlation(runs, part)]
    # from the slowest to the fastest, on a scale of doublings
    panels = {
        figure: {
            "two levels": [(here[0].value("updates/slow"), *over(here, figure)) for here in reversed(runs.values())]
        }
        for figure in ("forgetting", "learned", "drift/slow")
    }
    plot_panels(figures / "continual_periods.png", panels, "updates of the slow level")
    return [*lines, "", "![forgetting](figures/continual_periods.png)", ""]


def correlation(runs: dict[str, list[Found]], part: str) -> str:
    """Correlate drift with forgetting over all runs."""
    every = [each for here in runs.values() for each in here]
    x, y = ([each.value(figure) for each in every] for figure in (f"drift/{part}", "forgetting"))
    return f"- over these {len(every)} runs, drift of {part} and forgetting correlate with r = {pearson(x, y):+.2f}"


def memory_section(found: Sequence[Found]) -> list[str]:
    """Show what memories forget."""
    lines = [
        "## Memories instead of weights",
        "",
        "The weights are those after the first domain and stay; readers carry a memory through all five domains "
        "(`evals=continual_memory`): online, what the architecture writes by itself; memorize, what is studied.",
        "",
        "| model | memory | seeds | forgetting | bwt | learned | final | writes |",
        "|---" * 8 + "|",
    ]
    for model, overrides in MEMORIES.items():
        runs = [each for each in of(found, model) if "continual_memory" in each.reports]
        for report, words in (("continual_memory", "online"), ("continual_memory_memorize", " ".join(overrides))):
            here = [each for each in runs if report in each.reports]
            if here:
                values = [
                    [each.value(name, report) for each in here] for name in ("forgetting", "bwt", "learned", "final")
                ]
                cells = " | ".join(shown(mean_and_stderr(column)) for column in values)
                lines.append(f"| {model} | {words} | {len(here)} | {cells} | {writes(here[0], report)} |")
    return [*lines, "", *gains(found)]


def writes(one: Found, report: str) -> str:
    """Return how often levels were written."""
    metrics = one.reports[report]["metrics"]
    return ", ".join(f"{key.split('/')[1]} {metrics[key]['value']:.0f}" for key in metrics if key.endswith("/writes"))


def gains(found: Sequence[Found]) -> list[str]:
    """Say what memories make of domains, against the same weights with nothing memorised."""
    lines = []
    for model in MEMORIES:
        for kind, report in (("online", "continual_memory"), ("memorize", "continual_memory_memorize")):
            here = [each for each in of(found, model) if report in each.reports]
            if here:
                gained = shown(mean_and_stderr([gain(each, report) for each in here]))
                lines.append(f"- {model}, {kind}: a domain costs {gained} bits per byte less right after it was read")
    return [*lines, ""]


def gain(one: Found, report: str) -> float:
    """Return how much less a domain costs right after it was read than before anything was, a mean over domains."""
    pairs = [(f"bpb/0/{name}", f"bpb/{place}/{name}") for place, name in enumerate(one.names, start=1)]
    return sum(one.value(before, report) - one.value(after, report) for before, after in pairs) / len(pairs)


def part_section(found: Sequence[Found]) -> list[str]:
    """Show what is forgotten of a book."""
    lines = []
    for model in MODELS:
        runs = of(found, model, "book")
        if runs:
            cells = " | ".join(shown(over(runs, figure)) for figure in FIGURES)
            lines.append(f"| {model} | {len(runs)} | {cells} |")
    if not lines:
        return []
    return [
        "## One book in five parts",
        "",
        "`experiment=chronological`: Les Misérables from its beginning to its end, each part a domain.",
        "",
        f"| model | seeds | {' | '.join(FIGURES)} |",
        "|---" * (len(FIGURES) + 2) + "|",
        *lines,
        "",
    ]


def acceptance(found: Sequence[Found]) -> list[str]:
    """Say what of the acceptance holds: complete matrices, enough that is forgotten, the same figures each time."""
    lines = ["## Acceptance", ""]
    for model in ("transformer", "hope"):
        for order in ("forward", "reverse"):
            lines += [accepted(model, order, runs) for runs in [of(found, model, order)] if runs]
    for each in found:
        if each.run.again:
            first = next(one for one in of(found, each.run.model) if one.run.seed == each.run.seed)
            is_same = first.reports["continual"]["metrics"] == each.reports["continual"]["metrics"]
            word = "**identical** figures" if is_same else "**other** figures"
            lines.append(f"- {first.run.name}, trained and evaluated again with the same seed: {word}")
    return lines


def accepted(model: str, order: str, runs: Sequence[Found]) -> str:
    """Say whether the matrices are complete, and whether enough was forgotten for them to say anything."""
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
        f"- {model}, {order}: the matrix of {cells} cells is {whole}; forgotten (by more than {NUM_ERRORS} standard "
        f"errors) were {', '.join(map(str, counts))} of {len(names) - 1} old domains, by seed; at least 3: {enough}"
    )
