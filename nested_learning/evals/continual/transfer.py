"""Accuracy metrics of class-incremental learning, from a matrix: each task after each number of learned tasks.

Keys of a record: `after`, the number of tasks learned; `task` (1, 2, ...), the task of the text; `example`, its number;
`correct`, whether the chosen label is right; `num_choices`, the number of candidate labels.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from nested_learning.evals.metrics import Samples
from nested_learning.evals.protocol import Grid, Panels, Record

# of a matrix: number of tasks learned, task evaluated
Cell = tuple[int, int]
Cells = Mapping[Cell, Mapping[int, Record]]


def cells_of(records: Sequence[Record]) -> dict[Cell, dict[int, Record]]:
    """Return the records of each cell of the matrix, by example."""
    cells: dict[Cell, dict[int, Record]] = {}
    for record in records:
        cells.setdefault((record["after"], record["task"]), {})[record["example"]] = record
    return cells


def transfer(records: Sequence[Record], joint: Sequence[Record] = ()) -> dict[str, Samples]:
    """Return the metrics of T tasks, each with the same weight; R[i][j] is the accuracy on task j after i tasks.

    `accuracy`: the mean of R[T][j]; `learning_accuracy` of R[j][j]; `bwt`, backward transfer, of R[T][j] - R[j][j] over
    j < T; `fwt`, forward transfer, of R[j-1][j] - R[0][j] over j > 1, where j is the last of the classes to choose
    from; `forgetting` of max R[i][j] - R[T][j] over j <= i < T; `intransigence`, where `joint` has the records of a
    model that learned all tasks at once, of its accuracy on j minus R[j][j]. `accuracy/<i>/<j>` is R[i][j], `seen/<i>`
    the mean of R[i][j] over j <= i. Errors are over examples, not over runs. Source: Lopez-Paz and Ranzato, arXiv
    1706.08840, section 2; Chaudhry et al., arXiv 1801.10112, section 3.
    """
    cells = cells_of(records)
    last = max(after for after, _ in cells)
    tasks = sorted(task for after, task in cells if after == last)
    found = {"accuracy": _mean([cells[last, task] for task in tasks])}
    if all((task, task) in cells for task in tasks):
        own = {task: cells[task, task] for task in tasks}
        found["learning_accuracy"] = _mean(list(own.values()))
        earlier = tasks[:-1]
        if earlier:
            best = {task: max((cells[i, task] for i in range(task, last)), key=_accuracy) for task in earlier}
            found["bwt"] = _difference([(cells[last, task], own[task]) for task in earlier], "higher")
            found["forgetting"] = _difference([(best[task], cells[last, task]) for task in earlier], "lower")
            found["fwt"] = _difference([(cells[task - 1, task], cells[0, task]) for task in tasks[1:]], "higher")
        if joint:
            together = {task: here for (_, task), here in cells_of(joint).items()}
            found["intransigence"] = _difference([(together[task], own[task]) for task in tasks], "lower")
        for after in tasks:
            found[f"seen/{after}"] = _mean([cells[after, task] for task in tasks if task <= after])
    for after, task in sorted(cells):
        if task <= after:
            found[f"accuracy/{after}/{task}"] = _mean([cells[after, task]])
    return found


def accuracy_curves(metrics: Mapping[str, Samples]) -> Panels:
    """Return curves of accuracy over the tasks learned: on all classes so far, and on those of each task."""
    panels: Panels = {}
    for name, samples in metrics.items():
        kind, *place = name.split("/")
        if not place:
            continue
        value, stderr = samples.metric()[:2]
        point = (float(place[0]), value, stderr)
        if kind == "seen":
            panels.setdefault("all classes so far", {}).setdefault("all", []).append(point)
        else:
            panels.setdefault("classes of each task", {}).setdefault(f"task {place[1]}", []).append(point)
    return panels


def accuracy_grid(metrics: Mapping[str, Samples]) -> Grid:
    """Return the matrix: a row for the tasks learned, a column for each task."""
    names = [name.split("/")[1:] for name in metrics if name.startswith("accuracy/")]
    after, tasks = ({int(name[place]) for name in names} for place in (0, 1))
    values = [
        [metrics[name].metric().value if (name := f"accuracy/{i}/{j}") in metrics else None for j in sorted(tasks)]
        for i in sorted(after)
    ]
    return Grid("tasks learned", sorted(after), "task", sorted(tasks), values)


def _accuracy(records: Mapping[int, Record]) -> float:
    return fmean(record["correct"] for record in records.values())


def _mean(parts: Sequence[Mapping[int, Record]]) -> Samples:
    """Return the mean over parts of their mean accuracy."""
    rows = [(row, 1 / len(part)) for part in parts for row in part.values()]
    chance = sum(weight / row["num_choices"] for row, weight in rows) / len(parts)
    return Samples([row["correct"] * weight for row, weight in rows], [weight for _, weight in rows], "higher", chance)


def _difference(pairs: Sequence[tuple[Mapping[int, Record], Mapping[int, Record]]], better: str) -> Samples:
    """Return the mean over pairs of the first accuracy minus the second, on the same examples."""
    numerators, denominators = [], []
    for one, other in pairs:
        assert one.keys() == other.keys(), "both have the same examples"
        numerators += [(one[example]["correct"] - other[example]["correct"]) / len(one) for example in one]
        denominators += [1 / len(one)] * len(one)
    return Samples(numerators, denominators, better)
