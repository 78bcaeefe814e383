"""The papers' claims about their optimizer rules, tested on toy problems: reports/optimizers.md and its plots.

    python -m scripts.experiments.optimizers.run

Every rule gets the same grid of learning rates, and at most as many values of its other keywords as the rules that it
is compared with; the best setting is reported. Less than a minute on one core.
"""

import math
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from scripts.experiments.optimizers.plots import plot_curves, plot_losses, plot_valley
from scripts.experiments.optimizers.problems import (
    Course,
    Learner,
    changing,
    rates,
    steps_to,
    stream,
    tasks,
    tune,
    valley,
)

ROOT = Path(__file__).parents[3]
REPORT, FIGURES = ROOT / "reports" / "optimizers.md", ROOT / "reports" / "figures"
SEEDS = 4
# height of the walls, bend, waves
VALLEYS = {
    "10, 1, 3": (10.0, 1.0, 3.0),
    "5, 1, 3": (5.0, 1.0, 3.0),
    "10, ½, 5": (10.0, 0.5, 5.0),
    "20, 1, 2": (20.0, 1.0, 2.0),
}


def momenta(*shares: float) -> list[Learner]:
    """Momentum with each of `shares`."""
    return [Learner("momentum", "momentum", {"momentum": share}) for share in shares]


def adamws(*betas: float) -> list[Learner]:
    """AdamW with each of `betas` for the mean."""
    return [Learner("adamw", "adamw", {"betas": [beta, 0.99], "eps": 1e-8}) for beta in betas]


GD = Learner("gd", "gd", {})


def curved_valley() -> list[str]:
    """Delta momentum on the curved valley."""
    learners = [GD, *momenta(0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99), *adamws(0.8, 0.9, 0.95)]
    for share in (0.8, 0.9, 0.95):
        for erase in (0.01, 0.1, 1.0):
            learners.append(Learner("delta_momentum", "delta_momentum", {"momentum": share, "erase": erase}))
    start, found = torch.tensor([[[-3.5, 2.0]]]), {}
    for name, shape in VALLEYS.items():
        found[name] = tune(learners, valley(*shape), start, 500, rates(-3.5, -1), lambda c: steps_to(c, 1e-3))
    first = next(iter(VALLEYS))
    plot_valley(FIGURES / "rules_valley.png", found[first], valley(*VALLEYS[first]))
    wins = sum(courses["delta_momentum"].score < 0.9 * courses["momentum"].score for courses in found.values())
    return [
        "## Delta momentum on the curved valley",
        "",
        *prose(
            "`r² + k (r − θ + a sin ωr)²` from (−3.5, 2), equation 53 of the paper, which leaves k, a and ω open:",
            "four choices. Steps until the loss stays below 0.001, of 500 (– = never), at the best of 11 rates and",
            "up to 9 settings of the other keywords.",
        ),
        "",
        *table("k, a, ω", found, lambda course: "–" if math.isinf(course.score) else f"{course.score:.0f}"),
        "",
        "![valley](figures/rules_valley.png)",
        "",
        *prose(
            f"{verdict(wins == len(found), wins > 0)}: delta momentum needs at least a tenth fewer steps than",
            f"momentum in {wins} of {len(found)} valleys. It lets go of the momentum where the walls throw large",
            "gradients back, and is plain momentum on the",
            "floor of the valley.",
        ),
        "",
    ]


def changing_gradients() -> list[str]:
    """Deep momentum on gradients that change quickly."""
    learners = [GD, *momenta(0.3, 0.5, 0.7, 0.9), *adamws(0.5, 0.9)]
    for memory_lr in (0.2, 0.5):
        for retention in (0.999, 1.0):
            keywords = {"memory_lr": memory_lr, "retention": retention}
            learners.append(Learner("deep_momentum", "deep_momentum", keywords))
    found = {}
    for directions in (1, 2, 4, 8, 16, 32):
        problem, start = changing(directions, SEEDS, 300)
        found[directions] = tune(learners, problem, start, 300, rates(-2.5, 0), lambda c: c.losses[150:].mean(0))
    curves = {"": transposed(found)}
    plot_curves(FIGURES / "rules_changing.png", curves, "directions", "error", xscale="log")
    wins = [d for d, courses in found.items() if better(courses, "deep_momentum")]
    return [
        "## Deep momentum on gradients that change",
        "",
        *prose(
            "An 8 x 32 matrix follows a target that swings with periods of 20 to 60 steps along a few of its 32 input",
            "directions; the gradient is the distance plus noise in all directions. Mean squared error over the second",
            "half of 300 steps, in units of the target's own mean square; best of 11 rates and up to 4 settings of the",
            f"other keywords; {SEEDS} seeds.",
        ),
        "",
        *table("directions", found, scored),
        "",
        "![changing](figures/rules_changing.png)",
        "",
        *prose(
            f"{verdict(len(wins) == len(found), bool(wins))}: deep momentum follows better than all others, by more",
            f"than the errors, with {', '.join(map(str, wins)) or 'no number of'} directions. Momentum averages over",
            "time and comes late; a memory that is asked *with the gradient* averages over what was like it. Its 16",
            "hidden units are a limit: with as many directions or more it holds gradients back without gain.",
        ),
        "",
    ]


def orthogonal_tasks() -> list[str]:
    """M3 on tasks one after another."""
    learners = [GD, *momenta(0.5, 0.8, 0.9, 0.95), *adamws(0.8, 0.9), *muons(0.8, 0.9, 0.95)]
    for eps in (1.0, 10.0):
        m3 = {"slow_every": 10, "eps": eps}
        learners += [Learner("m3", "m3", m3 | {"slow_weight": weight}) for weight in (0.5, 1.0)]
        learners.append(Learner("m3 without slow", "m3", m3 | {"slow_weight": 0.0}))
    found, eager = {}, {}
    for name, rounds in (("one turn each", 1), ("four turns each", 4)):
        problem, start, first = tasks(6, 3, 240, rounds)
        found[name] = tune(learners, problem, start, 240, rates(-2.25, 0.25), lambda c: c.losses[-1])
        if rounds == 1:
            eager = tune(learners, problem, start, 240, rates(-2.25, 0.25), partial(_after_first_turn, first))
            kept = {n: (c.score, float(first(c.path[-1]).mean())) for n, c in eager.items()}
    plot_losses(FIGURES / "rules_tasks.png", found, (6, 24))
    wins = sum(better(courses, "m3") for courses in found.values())
    rows = table("loss of all tasks at the end", found, scored)
    rows.append(
        f"| first task, after its turn → at the end | {' | '.join(f'{a:.2f} → {b:.2f}' for a, b in kept.values())} |"
    )
    return [
        "## M3 on orthogonal tasks",
        "",
        *prose(
            "Equation 45: six linear tasks one after another, each with 4 of 32 orthogonal input directions. An 8 x 32",
            "matrix learns each for 40 steps, or in four turns of 10; loss of all tasks in units of the start,",
            "best of 11 rates and up to 4 settings of the other keywords, chosen by the loss of all tasks at the",
            "end; 3 seeds. The last row is chosen by how well the first task is learned in its one turn, and says",
            "what becomes of it.",
        ),
        "",
        *rows,
        "",
        "![tasks](figures/rules_tasks.png)",
        "",
        *prose(
            f"{verdict(wins == 2, wins > 0)}: M3 is best in {wins} of 2. Gradient descent forgets nothing here, for",
            "the gradient of a task does not touch the directions of another, and momentum goes on only a little",
            "after a turn. Muon and M3 give every direction that is still in the momentum a step of full size,",
            "however small its gradient has become; algorithm 1 adds gradients up without ever fading them, so",
            "that an M3 which learns a task in its turn pushes far past it afterwards, and its best rate is one at",
            "which no task is learned in its turn. The slow momentum does not help here.",
        ),
        "",
    ]


def _after_first_turn(first: Callable[[torch.Tensor], torch.Tensor], course: Course) -> torch.Tensor:
    return first(course.path[40])


def correlated_inputs() -> list[str]:
    """DGD on inputs that resemble one another."""
    decays = [Learner("gd, weights decay", "gd", {"weight_decay": decay}) for decay in (0.01, 0.03, 0.1, 0.3, 1.0)]
    learners = [GD, *decays, *momenta(0.5, 0.9), Learner("dgd", "dgd", {"input_decay": 1.0})]
    titles = {"dot": "objective −⟨Wx, y⟩", "l2": "objective ½ ‖Wx − y‖²"}
    panels, tables = {}, []
    for objective, title in titles.items():
        found = {}
        for correlation in (0.0, 0.5, 0.8, 0.9, 0.95):
            problem, start = stream(correlation, SEEDS, 300, objective)
            found[correlation] = tune(learners, problem, start, 300, rates(-2, 2), lambda c: c.losses[150:].mean(0))
        panels[title] = transposed(found)
        tables += [f"{title}:", "", *table("correlation", found, scored), ""]
    plot_curves(FIGURES / "rules_inputs.png", panels, "correlation of an input with the one before", "error")
    dot, l2 = panels.values()
    wins = all(dot["dgd"][place].score < dot["gd"][place].score for place in dot["dgd"])
    half = all(0.2 < course.score < 0.3 for course in l2["dgd"].values())
    return [
        "## DGD on correlated inputs",
        "",
        *prose(
            "A 16 to 8 linear map learns from inputs of length 1, one at a time, each like the one before. Squared",
            "error on the next input over the second half of 300 steps, in units of answering zero; best of 17",
            f"rates and up to 5 settings of the other keywords; {SEEDS} seeds.",
        ),
        "",
        *tables,
        "![inputs](figures/rules_inputs.png)",
        "",
        *prose(
            f"{verdict(wins)} for the objective that the paper derives it from, where gradient descent adds inputs up",
            "regardless of what is known: DGD takes away the old answer first, and learns as well as gradient",
            "descent does by regression. With a regression loss, which takes the old answer away itself, DGD takes",
            "it away twice and ends at half of the target:" if half else "does no better:",
            "use it there with `input_decay` well below 1.",
        ),
        "",
    ]


def prose(*parts: str) -> list[str]:
    """Break a paragraph into lines."""
    return textwrap.wrap(" ".join(parts), 120, break_long_words=False, break_on_hyphens=False)


def muons(*shares: float) -> list[Learner]:
    """Muon with each of `shares`."""
    return [Learner("muon", "muon", {"momentum": share}) for share in shares]


def better(courses: Mapping[str, Course], name: str) -> bool:
    """Say whether the score of `name` is below all others by more than both standard errors; its variants aside."""
    own, others = courses[name], [course for other, course in courses.items() if not other.startswith(name)]
    return all(own.score + own.error < course.score - course.error for course in others)


def transposed(found: Mapping[float, Mapping[str, Course]]) -> dict[str, dict[float, Course]]:
    """Sort courses by name first, place second."""
    names = next(iter(found.values()))
    return {name: {place: courses[name] for place, courses in found.items()} for name in names}


def scored(course: Course) -> str:
    """Write a score with its standard error."""
    return f"{course.score:.3f} ± {course.error:.3f}" if math.isfinite(course.score) else "–"


def table(corner: str, found: Mapping, write) -> list[str]:
    """Lay courses out: a row for each place, a column for each name, the lowest score of a row in bold."""
    names = list(next(iter(found.values())))
    lines = [f"| {corner} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for place, courses in found.items():
        least = min(course.score for course in courses.values())
        cells = [f"**{write(c)}**" if c.score == least else write(c) for c in (courses[name] for name in names)]
        lines.append(f"| {place} | {' | '.join(cells)} |")
    return lines


def verdict(everywhere: bool, somewhere: bool = False) -> str:
    """Say what became of a claim."""
    return "**Reproduced**" if everywhere else "**Reproduced in part**" if somewhere else "**Not reproduced**"


def main(arguments: Sequence[str]) -> None:
    """Run all four, draw, and write the report."""
    torch.set_num_threads(1)
    start = time.process_time()
    sections = [*curved_valley(), *changing_gradients(), *orthogonal_tasks(), *correlated_inputs()]
    seconds = time.process_time() - start
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    lines = [
        "# Learning rules: the papers' points on toy problems",
        "",
        *prose(
            f"`python {' '.join(arguments)}`, commit {commit}, {seconds:.0f} CPU seconds on one thread. All rules",
            "of a table have the same grid of rates, four to a power of ten; the best is shown, errors are",
            "standard errors over seeds. The rules are those of `nested_learning/ops/rules`; what they leave open",
            "is said in docs/equations.md.",
        ),
        "",
        *sections,
    ]
    REPORT.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv)
