"""The papers' claims about their optimizer rules, tested on toy problems: reports/optimizers.md and its plots.

    python -m scripts.experiments.optimizers.run
    python -m scripts.experiments.optimizers.run --report /tmp/optimizers.md

Every rule gets the same grid of learning rates, and at most as many values of its other keywords as the rules that it
is compared with; the best setting is reported. Less than a minute on one core.
"""

import argparse
import math
import subprocess
import textwrap
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from nested_learning.report.text import command_line
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
SEEDS = 4
# k, a and ω of the valley
VALLEYS = {
    "10, 1, 3": (10.0, 1.0, 3.0),
    "5, 1, 3": (5.0, 1.0, 3.0),
    "10, ½, 5": (10.0, 0.5, 5.0),
    "20, 1, 2": (20.0, 1.0, 2.0),
}


def momenta(*factors: float) -> list[Learner]:
    """Return momentum with each of `factors`."""
    return [Learner("momentum", "momentum", {"momentum": factor}) for factor in factors]


def adamws(*betas: float) -> list[Learner]:
    """Return AdamW with each of `betas` for the mean."""
    return [Learner("adamw", "adamw", {"betas": [beta, 0.99], "eps": 1e-8}) for beta in betas]


GD = Learner("gd", "gd", {})


def curved_valley(figures: Path) -> list[str]:
    """Test delta momentum on the curved valley."""
    learners = [GD, *momenta(0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99), *adamws(0.8, 0.9, 0.95)]
    for factor in (0.8, 0.9, 0.95):
        for erase in (0.01, 0.1, 1.0):
            learners.append(Learner("delta_momentum", "delta_momentum", {"momentum": factor, "erase": erase}))
    start, courses_of = torch.tensor([[[-3.5, 2.0]]]), {}
    for name, shape in VALLEYS.items():
        courses_of[name] = tune(learners, valley(*shape), start, 500, rates(-3.5, -1), lambda c: steps_to(c, 1e-3))
    first = next(iter(VALLEYS))
    plot_valley(figures / "rules_valley.png", courses_of[first], valley(*VALLEYS[first]))
    wins = sum(courses["delta_momentum"].score < 0.9 * courses["momentum"].score for courses in courses_of.values())
    return [
        "## Delta momentum on the curved valley",
        "",
        *prose(
            "Minimize `r² + k (r − θ + a sin ωr)²` from (−3.5, 2): equation 53 of the paper, which does not give k, a",
            "and ω; four choices are tested. The table shows the number of steps until the loss stays below 0.001, of",
            "500 (–: never), with the best of 11 learning rates and up to 9 settings of the other keywords.",
        ),
        "",
        *table("k, a, ω", courses_of, lambda course: "–" if math.isinf(course.score) else f"{course.score:.0f}"),
        "",
        "![valley](figures/rules_valley.png)",
        "",
        *prose(
            f"{verdict(wins == len(courses_of), wins > 0)}: delta momentum needs at least a tenth fewer steps than",
            f"momentum in {wins} of {len(courses_of)} valleys. It erases momentum where the steep walls reverse the",
            "gradient, and equals plain momentum on the floor of the valley.",
        ),
        "",
    ]


def changing_gradients(figures: Path) -> list[str]:
    """Test deep momentum on gradients that change quickly."""
    learners = [GD, *momenta(0.3, 0.5, 0.7, 0.9), *adamws(0.5, 0.9)]
    for memory_lr in (0.2, 0.5):
        for retention in (0.999, 1.0):
            keywords = {"memory_lr": memory_lr, "retention": retention}
            learners.append(Learner("deep_momentum", "deep_momentum", keywords))
    courses_of = {}
    for directions in (1, 2, 4, 8, 16, 32):
        problem, start = changing(directions, SEEDS, 300)
        courses_of[directions] = tune(learners, problem, start, 300, rates(-2.5, 0), lambda c: c.losses[150:].mean(0))
    curves = {"": transposed(courses_of)}
    plot_curves(figures / "rules_changing.png", curves, "directions", "error", xscale="log")
    wins = [d for d, courses in courses_of.items() if better(courses, "deep_momentum")]
    return [
        "## Deep momentum on gradients that change",
        "",
        *prose(
            "An 8 x 32 matrix follows a target that oscillates with periods of 20 to 60 steps along a few of its 32",
            "input directions; the gradient is the distance to it plus noise in all directions. The table shows the",
            "mean squared error over the second half of 300 steps, relative to the mean square of the target, with the",
            f"best of 11 learning rates and up to 4 settings of the other keywords; {SEEDS} seeds.",
        ),
        "",
        *table("directions", courses_of, scored),
        "",
        "![changing](figures/rules_changing.png)",
        "",
        *prose(
            f"{verdict(len(wins) == len(courses_of), bool(wins))}: deep momentum is better than all others, by more",
            f"than the errors, with {', '.join(map(str, wins)) or 'no number of'} directions. Momentum averages over",
            "time and lags behind; a memory that is queried *with the gradient* averages over similar gradients. Its",
            "16 hidden units are a limit: with 16 directions or more it damps gradients without a benefit.",
        ),
        "",
    ]


def orthogonal_tasks(figures: Path) -> list[str]:
    """Test M3 on tasks learned one after another."""
    learners = [GD, *momenta(0.5, 0.8, 0.9, 0.95), *adamws(0.8, 0.9), *muons(0.8, 0.9, 0.95)]
    for eps in (1.0, 10.0):
        m3 = {"slow_every": 10, "eps": eps}
        learners += [Learner("m3", "m3", m3 | {"slow_weight": weight}) for weight in (0.5, 1.0)]
        learners.append(Learner("m3 without slow", "m3", m3 | {"slow_weight": 0.0}))
    courses_of, fast = {}, {}
    for name, rounds in (("one turn each", 1), ("four turns each", 4)):
        problem, start, first = tasks(6, 3, 240, rounds)
        courses_of[name] = tune(learners, problem, start, 240, rates(-2.25, 0.25), lambda c: c.losses[-1])
        if rounds == 1:
            fast = tune(learners, problem, start, 240, rates(-2.25, 0.25), partial(_after_first_turn, first))
            kept = {n: (c.score, float(first(c.path[-1]).mean())) for n, c in fast.items()}
    plot_losses(figures / "rules_tasks.png", courses_of, (6, 24))
    wins = sum(better(courses, "m3") for courses in courses_of.values())
    rows = table("loss of all tasks at the end", courses_of, scored)
    rows.append(
        f"| first task, after its turn → at the end | {' | '.join(f'{a:.2f} → {b:.2f}' for a, b in kept.values())} |"
    )
    return [
        "## M3 on orthogonal tasks",
        "",
        *prose(
            "Equation 45: six linear tasks one after another, each with 4 of 32 orthogonal input directions. An 8 x 32",
            "matrix learns each for 40 steps, or in four turns of 10. The first two rows show the final loss of all",
            "tasks, relative to the start, with the best of 11 learning rates and up to 4 settings of the other",
            "keywords; 3 seeds. For the last row the setting is the one that learns the first task best during its one",
            "turn; the row shows the loss of that task then and at the end.",
        ),
        "",
        *rows,
        "",
        "![tasks](figures/rules_tasks.png)",
        "",
        *prose(
            f"{verdict(wins == 2, wins > 0)}: M3 is best in {wins} of 2 settings. Gradient descent forgets nothing",
            "here, because the gradient of a task has no component in the directions of another, and momentum",
            "continues only briefly after a turn. Muon and M3 take a step of full size along every direction that is",
            "still in the momentum, however small its gradient has become. Algorithm 1 sums gradients without decay,",
            "so an M3 that learns a task during its turn overshoots far afterwards; at its best rate it learns no task",
            "during its turn. The slow momentum does not help here.",
        ),
        "",
    ]


def _after_first_turn(first: Callable[[torch.Tensor], torch.Tensor], course: Course) -> torch.Tensor:
    return first(course.path[40])


def correlated_inputs(figures: Path) -> list[str]:
    """Test DGD on correlated inputs."""
    decays = [Learner("gd, weights decay", "gd", {"weight_decay": decay}) for decay in (0.01, 0.03, 0.1, 0.3, 1.0)]
    learners = [GD, *decays, *momenta(0.5, 0.9), Learner("dgd", "dgd", {"input_decay": 1.0})]
    titles = {"dot": "objective −⟨Wx, y⟩", "l2": "objective ½ ‖Wx − y‖²"}
    panels, tables = {}, []
    for objective, title in titles.items():
        courses_of = {}
        for correlation in (0.0, 0.5, 0.8, 0.9, 0.95):
            problem, start = stream(correlation, SEEDS, 300, objective)
            courses_of[correlation] = tune(
                learners, problem, start, 300, rates(-2, 2), lambda c: c.losses[150:].mean(0)
            )
        panels[title] = transposed(courses_of)
        tables += [f"{title}:", "", *table("correlation", courses_of, scored), ""]
    plot_curves(figures / "rules_inputs.png", panels, "correlation with the previous input", "error")
    dot, l2 = panels.values()
    wins = all(dot["dgd"][value].score < dot["gd"][value].score for value in dot["dgd"])
    half = all(0.2 < course.score < 0.3 for course in l2["dgd"].values())
    return [
        "## DGD on correlated inputs",
        "",
        *prose(
            "A linear map from 16 to 8 dimensions learns from inputs of norm 1, one at a time, each correlated with",
            "the previous one. The table shows the squared error on the next input over the second half of 300 steps,",
            "relative to that of predicting zero, with the best of 17 learning rates and up to 5 settings of the other",
            f"keywords; {SEEDS} seeds.",
        ),
        "",
        *tables,
        "![inputs](figures/rules_inputs.png)",
        "",
        *prose(
            f"{verdict(wins)} for the dot-product objective, from which the paper derives DGD. There gradient descent",
            "adds up inputs regardless of what is stored already; DGD first subtracts the old prediction, and learns",
            "as well as gradient descent does with a regression loss. A regression loss subtracts the old prediction",
            "itself; with it DGD subtracts it twice and converges to half of the target:"
            if half
            else "with it DGD is no better:",
            "use `input_decay` well below 1 there.",
        ),
        "",
    ]


def prose(*parts: str) -> list[str]:
    """Break a paragraph into lines."""
    return textwrap.wrap(" ".join(parts), 120, break_long_words=False, break_on_hyphens=False)


def muons(*factors: float) -> list[Learner]:
    """Return Muon with each of `factors` for its momentum."""
    return [Learner("muon", "muon", {"momentum": factor}) for factor in factors]


def better(courses: Mapping[str, Course], name: str) -> bool:
    """Return whether the score of `name` is below all others, but its variants, by more than both standard errors."""
    own, others = courses[name], [course for other, course in courses.items() if not other.startswith(name)]
    return all(own.score + own.error < course.score - course.error for course in others)


def transposed(courses_of: Mapping[float, Mapping[str, Course]]) -> dict[str, dict[float, Course]]:
    """Return the courses by name first and by value of the varied quantity second."""
    names = next(iter(courses_of.values()))
    return {name: {value: courses[name] for value, courses in courses_of.items()} for name in names}


def scored(course: Course) -> str:
    """Write a score with its standard error."""
    return f"{course.score:.3f} ± {course.error:.3f}" if math.isfinite(course.score) else "–"


def table(corner: str, courses_of: Mapping, write) -> list[str]:
    """Write courses as a table: a row for each value, a column for each name, the lowest score of a row in bold."""
    names = list(next(iter(courses_of.values())))
    lines = [f"| {corner} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for value, courses in courses_of.items():
        least = min(course.score for course in courses.values())
        cells = [f"**{write(c)}**" if c.score == least else write(c) for c in (courses[name] for name in names)]
        lines.append(f"| {value} | {' | '.join(cells)} |")
    return lines


def verdict(everywhere: bool, somewhere: bool = False) -> str:
    """Write whether a claim was reproduced."""
    return "**Reproduced**" if everywhere else "**Reproduced in part**" if somewhere else "**Not reproduced**"


def main() -> None:
    """Run the four problems, write the plots and the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=ROOT / "reports/optimizers.md", help="figures/ goes next to it")
    report = parser.parse_args().report
    figures = report.parent / "figures"
    torch.set_num_threads(1)
    start = time.process_time()
    problems = (curved_valley, changing_gradients, orthogonal_tasks, correlated_inputs)
    sections = [line for problem in problems for line in problem(figures)]
    seconds = time.process_time() - start
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    lines = [
        "# Optimizer rules: the papers' claims on toy problems",
        "",
        *prose(
            f"`{command_line('scripts.experiments.optimizers.run')}`, commit {commit}, {seconds:.0f} CPU seconds on",
            "one thread. All rules of a table are tuned on the same grid of learning rates, four to a power of ten;",
            "the best is shown, errors are standard errors over seeds. The rules are those of",
            "`nested_learning/ops/rules`; choices that the papers leave open are listed in docs/equations.md.",
        ),
        "",
        *sections,
    ]
    report.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(report.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
