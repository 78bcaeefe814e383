"""The report's sections on formal languages and on MAD."""

from pathlib import Path

from nested_learning.data.tasks.mad import MadConfig
from nested_learning.report.text import format_mean, table
from scripts.experiments.capabilities.claims import (
    MARKS,
    MIN_ACCURACY,
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
from scripts.experiments.capabilities.results import NONE, PartResults, difference, points, seeds_of
from scripts.experiments.capabilities.trials import LONGER

# evaluations of the formal languages: title, and name of the report; None for the validation during training
BINS = (("in-length", None), ("longer", LONGER.name))


def formal_section(part: PartResults, figures: Path) -> list[str]:
    """Report on formal languages, at trained and longer lengths, compared with table 5."""
    shares = {
        title: {
            (model, language): part.values(language, model, "sequence_accuracy", report)
            for language, model in part.runs
        }
        for title, report in BINS
    }
    plot_shares(figures / "capabilities_formal.png", shares, part.models, part.cases)
    data = part.all_runs[0].config["data"]
    longest = data["max_length"]
    lines = [
        "## Formal languages",
        "",
        f"Words of {data['min_length']} to {longest} letters; after each the model predicts which letters may "
        "follow (Table 5 of Nested Learning). A word is right if every position is; longer words, of "
        f"{longest + 1} to {2 * longest} letters, are evaluated without training on them. {seeds_of(part)} In "
        "brackets: the paper's result. The LSTM has three times the learning rate of the others. hope_adding is HOPE "
        "with memories that add (objective=dot, no decay) instead of correcting their predictions: it tests what "
        "counting needs.",
        "",
        "![Words right](figures/capabilities_formal.png)",
        "",
    ]
    words: dict[str, list[str]] = {model: [] for model in part.models}
    for index, (title, _) in enumerate(BINS):
        rows = []
        for model in part.models:
            rows.append([model, *(share_cell(part, case, model, index, words[model]) for case in part.cases)])
        lines += [*table([f"words right, {title}, %", *part.cases], rows), ""]
    lines += [f"- {model}: {len(each)} claims: **{count(each)}**" for model, each in words.items() if each]
    return [*lines, ""]


def share_cell(part: PartResults, language: str, model: str, index: int, words: list[str]) -> str:
    """Write an accuracy, the paper's, and the mark of the verdict, which is appended to `words`."""
    values = part.values(language, model, "sequence_accuracy", BINS[index][1])
    if not values:
        return NONE
    rise = part.rise(language, model, "sequence_accuracy")
    if model not in TABLE_5 or language not in TABLE_5[model]:
        return format_mean(values, 1, 100)
    paper = TABLE_5[model][language][index]
    word = judge_share(values, paper)
    # a task that the paper solves is not called unsolved while its accuracy still rises
    words.append(unless_rising(word, rise) if paper >= 100 * SOLVED else word)
    return f"{format_mean(values, 1, 100)} ({paper:g} {MARKS[words[-1]]})"


def mad_section(part: PartResults, figures: Path) -> list[str]:
    """Report on the tasks of MAD, compared with table 4."""
    cells = {(model, task): part.values(task, model, "accuracy") for task, model in part.runs}
    chance = {case: MadConfig(**part.runs[case, model][0].config["data"]).chance for case, model in part.runs}
    plot_bars(figures / "capabilities_mad.png", cells, part.cases, chance)
    rows = []
    for model in part.models:
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
        "The tasks of Mechanistic Architecture Design (arXiv 2403.17844), shorter than in the paper and with new rows "
        f"at every step; accuracy on the positions that MAD tests. {seeds_of(part)} In brackets: Table 4 of Nested "
        "Learning, with models of another size, so only the order of the models can be compared.",
        "",
        "![Accuracy by task](figures/capabilities_mad.png)",
        "",
        *table(["accuracy, %", *part.cases], rows),
        "",
        *(verdict.line() for verdict in verdicts),
        "",
    ]


def mad_verdict(part: PartResults, task: str, name: str) -> Verdict:
    """Judge the order of HOPE and another model on one task."""
    hope, other = (part.by_seed(task, model, "accuracy") for model in ("hope", name))
    rise = part.rise(task, "hope", "accuracy")
    theirs, ours = TABLE_4[task][name], TABLE_4[task]["hope"]
    if theirs == ours:
        both = [*other.values(), *hope.values()]
        word = unless_rising(judge_share(both, theirs), max(rise, part.rise(task, name, "accuracy")))
        return Verdict(f"{task}: hope and {name} both solve it", f"lowest {min(both):.1%}", word)
    mean, error = difference(hope, other)
    claim = f"{task}: hope is above {name} ({ours - theirs:+.1f} in the paper)"
    return Verdict(claim, points(mean, error), unless_rising(judge_difference(mean, error, MIN_ACCURACY), rise))
