"""Four toy problems, each made for one property of optimizer rules; all runs of a grid are rows of one batch."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nested_learning.ops.rules.functions import FUNCTIONS

# gradient and loss at the weights of every row, before step t; with the inputs of the rules that read them
Problem = Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor | None]]


class Learner(NamedTuple):
    """A rule with its keywords, but for the learning rate; the same `name` means the same column of a table."""

    name: str
    rule: str
    keywords: dict[str, Any]


class Course(NamedTuple):
    """One optimization: keywords, learning rate, score (mean over seeds and standard error), losses and weights.

    losses: `[step, seed]`, and path: the weights `[step, seed, o, i]`, both before each step.
    """

    keywords: dict[str, Any]
    lr: float
    score: float
    error: float
    losses: Tensor
    path: Tensor


def rates(low: float, high: float) -> list[float]:
    """Return learning rates from 10^low to 10^high, four to a power of ten."""
    return [10 ** (low + step / 4) for step in range(round(4 * (high - low)) + 1)]


def learn(learner: Learner, problem: Problem, start: Tensor, steps: int, lrs: Sequence[float]) -> list[Course]:
    """Optimize with every learning rate of `lrs` from the weights `start`, `[seed, o, i]`; return a course for each."""
    seeds, rule = len(start), FUNCTIONS[learner.rule]
    w = start.repeat(len(lrs), 1, 1)
    rate = torch.tensor(lrs, dtype=w.dtype).repeat_interleave(seeds)[:, None, None]
    state, losses, path = rule.init(w), [], []
    for t in range(steps):
        g, loss, x = problem(w, t)
        losses.append(loss)
        path.append(w)
        keywords = {"weight_decay": 0.0} | learner.keywords | ({"x": x} if rule.reads_inputs else {})
        w, state = rule.update(w, g, state, lr=rate, **keywords)
    all_losses = torch.stack(losses).view(steps, len(lrs), seeds)
    all_paths = torch.stack(path).view(steps, len(lrs), seeds, *start.shape[1:])
    return [
        Course(learner.keywords, lr, math.nan, math.nan, all_losses[:, i], all_paths[:, i]) for i, lr in enumerate(lrs)
    ]


def best(courses: Sequence[Course], score: Callable[[Course], Tensor]) -> Course:
    """Return the course with the lowest mean of `score` over seeds; a score that is not finite counts as infinite."""
    scored = []
    for course in courses:
        scores = score(course)
        scores = torch.where(scores.isfinite(), scores, torch.inf)
        error = float(scores.std() / len(scores) ** 0.5) if len(scores) > 1 else 0.0
        scored.append(course._replace(score=float(scores.mean()), error=error))
    return min(scored, key=lambda course: course.score)


def tune(
    learners: Sequence[Learner],
    problem: Problem,
    start: Tensor,
    steps: int,
    lrs: Sequence[float],
    score: Callable[[Course], Tensor],
) -> dict[str, Course]:
    """Return the best course of each name among `learners`, over all learning rates and keywords."""
    courses: dict[str, list[Course]] = {}
    for learner in learners:
        courses.setdefault(learner.name, []).extend(learn(learner, problem, start, steps, lrs))
    return {name: best(courses, score) for name, courses in courses.items()}


def valley(k: float, bend: float, waves: float) -> Problem:
    """The curved valley `r² + k (r - θ + bend sin(waves r))²` ([NL] equation 53); weights are `[1, (r, θ)]`."""

    def problem(w: Tensor, _step: int) -> tuple[Tensor, Tensor, None]:
        r, theta = w[:, 0, 0], w[:, 0, 1]
        gap = r - theta + bend * torch.sin(waves * r)
        slope = torch.stack([2 * r + 2 * k * gap * (1 + bend * waves * torch.cos(waves * r)), -2 * k * gap], dim=1)
        return slope[:, None], r**2 + k * gap**2, None

    return problem


def steps_to(course: Course, tolerance: float) -> Tensor:
    """Return the number of steps until the loss stays below `tolerance`; infinity if it does not."""
    above = ~(course.losses < tolerance)
    last = above.float().mul(torch.arange(1, len(above) + 1)[:, None]).amax(0)
    return torch.where(last < len(above), last, torch.inf)


def changing(num_directions: int, seeds: int, steps: int, noise: float = 1.0) -> tuple[Problem, Tensor]:
    """Follow a target that changes quickly in a few directions, with noise in all; return the problem and the start.

    The target of each seed is an `[8, 32]` matrix that spans `num_directions` of the 32 input directions and oscillates
    along each with its own period of 20 to 60 steps.
    """
    generator = torch.Generator().manual_seed(num_directions)
    directions, _ = torch.linalg.qr(torch.randn(seeds, 32, num_directions, generator=generator))
    sides = torch.randn(seeds, 8, num_directions, generator=generator) * (32 / num_directions) ** 0.5
    speeds = 2 * math.pi / (20 + 40 * torch.rand(seeds, num_directions, generator=generator))
    shifts = 2 * math.pi * torch.rand(seeds, num_directions, generator=generator)
    disturbances = noise * torch.randn(steps, seeds, 8, 32, generator=generator)

    def problem(w: Tensor, t: int) -> tuple[Tensor, Tensor, None]:
        target = (sides * torch.sin(speeds * t + shifts)[:, None]) @ directions.mT
        repeats = len(w) // seeds
        gap = w - target.repeat(repeats, 1, 1)
        # relative to the mean square of the target
        return gap + disturbances[t].repeat(repeats, 1, 1), gap.square().sum((1, 2)) / (8 * 16), None

    return problem, torch.zeros(seeds, 8, 32)


def tasks(num_tasks: int, seeds: int, steps: int, rounds: int) -> tuple[Problem, Tensor, Callable[[Tensor], Tensor]]:
    """Learn linear tasks with orthogonal inputs one after another ([NL] equation 45).

    Each task has 4 of the 32 input directions, fixed pairs of inputs and targets along them, and turns of
    `steps / (num_tasks rounds)` steps; the loss is that of *all* tasks, relative to the start. Returns the problem, the
    start, and a function that gives the loss of the first task alone.
    """
    generator = torch.Generator().manual_seed(0)
    directions, _ = torch.linalg.qr(torch.randn(seeds, 32, 4 * num_tasks, generator=generator))
    answers = torch.randn(seeds, 8, 4 * num_tasks, generator=generator)
    length = steps // (num_tasks * rounds)

    def problem(w: Tensor, t: int) -> tuple[Tensor, Tensor, None]:
        repeats = len(w) // seeds
        u, y = directions.repeat(repeats, 1, 1), answers.repeat(repeats, 1, 1)
        error = w @ u - y
        task = (t // length) % num_tasks
        mine = slice(4 * task, 4 * task + 4)
        loss = error.square().sum((1, 2)) / y.square().sum((1, 2))
        return error[..., mine] @ u[..., mine].mT, loss, None

    def first(w: Tensor) -> Tensor:
        error = w @ directions[..., :4] - answers[..., :4]
        return error.square().sum((1, 2)) / answers[..., :4].square().sum((1, 2))

    return problem, torch.zeros(seeds, 8, 32), first


def stream(correlation: float, seeds: int, steps: int, objective: str) -> tuple[Problem, Tensor]:
    """Learn a linear map from inputs of norm 1, each correlated with the previous one; the objective is dot or l2.

    The loss is the squared error on the next input, before it is learned, relative to that of predicting zero.
    """
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(seeds, 8, 16, generator=generator)
    drawn = torch.randn(steps, seeds, 16, generator=generator)
    inputs = [drawn[0]]
    for t in range(1, steps):
        inputs.append(correlation * inputs[-1] + (1 - correlation**2) ** 0.5 * drawn[t])
    keys = torch.nn.functional.normalize(torch.stack(inputs), dim=-1)

    def problem(w: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        repeats = len(w) // seeds
        x = keys[t].repeat(repeats, 1)[:, None]
        y = x @ truth.repeat(repeats, 1, 1).mT
        error = x @ w.mT - y
        g = (-y if objective == "dot" else error).mT @ x
        return g, error.square().sum((1, 2)) / 8, x

    return problem, torch.zeros(seeds, 8, 16)
