"""Clocks of learning: a level is whatever learns at one rate, and its period is counted in tokens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """A part of the model that learns at its own rate (Nested Learning, arXiv 2512.24695, section 3; equations 70-71).

    `period` is in tokens; 0 means every optimizer step. `match` is a regular expression on parameter names.
    """

    name: str
    period: int
    match: str


def is_due(period: int, tokens_before: int, tokens_after: int) -> bool:
    """Say whether a level steps when the tokens read grow from `tokens_before` to `tokens_after`. Source: ours.

    True when a multiple of `period` lies in (tokens_before, tokens_after], and always for period 0, so that a
    period that is no multiple of the tokens of a step keeps its average rate.
    """
    return period == 0 or tokens_after // period > tokens_before // period
