"""Levels: parts of a model that are updated with a period of their own, counted in tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# number of optimizer steps -> tokens that they read, over all processes
TokensBefore = Callable[[int], int]


@dataclass(frozen=True)
class Context:
    """How a level learns inside the context: every row changes weights of its own, once in `period` tokens.

    `rule` (of `ops/rules`), `lr`, `weight_decay` and `options` (the rule's other keywords) make the update. `signal` is
    the error it follows: "teach", the gradient of the task's loss, or "local", that of an objective of the level.
    `is_through`: the outer gradient flows through the updates; otherwise they are constants to it.
    """

    period: int
    rule: str
    lr: float
    weight_decay: float
    options: tuple[tuple[str, Any], ...]
    signal: str
    is_through: bool


@dataclass(frozen=True)
class Level:
    """A part of the model that learns at its own rate (Nested Learning, arXiv 2512.24695, section 3; equations 70-71).

    `period` is in tokens and of the outer clock, the optimizer's; 0 means every optimizer step. `match` is a regular
    expression on parameter names. `context` is how the level learns while a context is read; None: it does not.
    """

    name: str
    period: int
    match: str
    context: Context | None = None


def is_due(period: int, tokens_before: int, tokens_after: int) -> bool:
    """Return whether a level steps when the number of tokens read grows from `tokens_before` to `tokens_after`.

    True when a multiple of `period` lies in (tokens_before, tokens_after], and always for period 0, so that a
    period that is no multiple of the tokens of a step keeps its average rate.
    """
    return period == 0 or tokens_after // period > tokens_before // period
