"""The report's sections on formal languages and on MAD."""

from pathlib import Path

from nested_learning.data.tasks.mad import MadConfig
from nested_learning.report.text import format_mean, table
from scripts.experiments.capabilities.claims import (
    LEAST_ACCURACY,
    MARKS,
    SOLVED,
    TABLE_4,
    TABLE_5,
    Verdict,
    count,
    judge_difference,
    judge_share,
    unless_rising,
)
from scripts.experiments.capabilities.plots import plot_bars, plot_shares
from scripts.experiments.capabilities.results import NONE, Found, difference, points, seeds_of
from scripts.experiments.capabilities.trials import LONGER

# of the formal languages: what is asked, and the answer that holds it, None for the validation of the training
BINS = (("in-length", None), ("longer", LONGER.name))


def formal_section(part: Found, figures: Path) -> list[str]:
    """Report on formal languages, at trained and longer lengths, against table 5."""
    shares = {
        title: {
            (model, language): part.figures(language, model, "sequence_accuracy", answer)
            for language, model in part.runs
        }
        for title, answer in BINS
    }
    plot_shares(figures / "capabilities_formal.png", shares, part.subjects, part.cases)
    data = part.all_runs[0].config["data"]
    longest = data["max_length"]
    lines = [
        "## Formal languages",
        "",
        f"Words of {data['min_length']} to {longest} letters; after each the model says which letters may follow "
        f"(Table 5 of Nested Learning). A row counts when every position is right; longer: {longest + 1} to "
        f"{2 * longest} letters, read without training. {seeds_of(part)} In brackets what the paper reports. The LSTM "
        "learns with three times the others' rate. hope_adding is HOPE with memories that add (objective=dot, no "
        "decay) where HOPE's correct what they answer: a probe of what it takes to count.",
        "",
        "![Share of flawless rows](figures/capabilities_formal.png)",
        "",
    ]
    words: dict[str, list[str]] = {model: [] for model in part.subjects}
    for index, (title, _) in enumerate(BINS):
        rows = []
        for model in part.subjects:
            rows.append([model, *(share_cell(part, case, model, index, words[model]) for case in part.cases)])
        lines += [*table([f"flawless rows, {title}, %", *part.cases], rows), ""]
    lines += [f"- {model}: {len(said)} claims: **{count(said)}**" for model, said in words.items() if said]
    return [*lines, ""]


def share_cell(part: Found, language: str, model: str, index: int, words: list[str]) -> str:
    """Write a share beside the paper's, with the mark of its judgement, which is added to `words`."""
    values = part.figures(language, model, "sequence_accuracy", BINS[index][1])
    if not values:
        return NONE
    rise = part.rise(language, model, "sequence_accuracy")
    if model not in TABLE_5 or language not in TABLE_5[model]:
        return format_mean(values, 1, 100)
    paper = TABLE_5[model][language][index]
    word = judge_share(values, paper)
    # that something is solved is not denied while it is being learned
    words.append(unless_rising(word, rise) if paper >= 100 * SOLVED else word)
    return f"{format_mean(values, 1, 100)} ({paper:g} {MARKS[words[-1]]})"


def mad_section(part: Found, figures: Path) -> list[str]:
    """Report on the tasks of MAD against table 4."""
    cells = {(model, task): part.figures(task, model, "accuracy") for task, model in part.runs}
    chance = {case: MadConfig(**part.runs[case, subject][0].config["data"]).chance for case, subject in part.runs}
    plot_bars(figures / "capabilities_mad.png", cells, part.cases, chance)
    rows = []
    for model in part.subjects:
        row = [model]
        for task in part.cases:
            paper = f" ({TABLE_4[task][model]:g})" if task in TABLE_4 and model in TABLE_4[task] else ""
            row.append(format_mean(cells[model, task], 1, 100) + paper if (model, task) in cells else NONE)
        rows.append(row)
    rows.append(["chance", *(f"{100 * chance[task]:.1f}" for task in part.cases)])
    verdicts = [
        mad_verdict(part, task, other)
        for task in part.cases
        if task in TABLE_4
        for other in ("transformer", "titans_lmm")
        if (other, task) in cells and ("hope", task) in cells
    ]
    return [
        "## MAD",
        "",
        "The tasks of Mechanistic Architecture Design (arXiv 2403.17844), shorter than there and with fresh rows at "
        f"every step; accuracy of what MAD asks in its tests. {seeds_of(part)} In brackets Table 4 of Nested Learning, "
        "whose sizes are others: what is compared is the order of the models.",
        "",
        "![Accuracy by task](figures/capabilities_mad.png)",
        "",
        *table(["accuracy, %", *part.cases], rows),
        "",
        *(verdict.line() for verdict in verdicts),
        "",
    ]


def mad_verdict(part: Found, task: str, name: str) -> Verdict:
    """Judge the order of HOPE and another model at one task."""
    hope, other = (part.by_seed(task, model, "accuracy") for model in ("hope", name))
    rise = part.rise(task, "hope", "accuracy")
    theirs, ours = TABLE_4[task][name], TABLE_4[task]["hope"]
    if theirs == ours:
        both = [*other.values(), *hope.values()]
        word = unless_rising(judge_share(both, theirs), max(rise, part.rise(task, name, "accuracy")))
        return Verdict(f"{task}: hope and {name} both solve it", f"lowest {min(both):.1%}", word)
    mean, error = difference(hope, other)
    claim = f"{task}: hope is above {name} ({ours - theirs:+.1f} in the paper)"
    return Verdict(claim, points(mean, error), unless_rising(judge_difference(mean, error, LEAST_ACCURACY), rise))
