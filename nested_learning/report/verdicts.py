"""Which settings of a sweep differ: only those whose 95 % intervals are apart, paired where they read the same data."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, combinations
from statistics import fmean, stdev
from typing import NamedTuple

CONFIDENCE = 0.95
PAIRED, UNPAIRED, TOO_FEW, NOT_FINITE = "paired", "unpaired", "too few runs", "not finite"


class Measured(NamedTuple):
    """The metric of one run, and the hash of its training data in their order ("": unknown)."""

    value: float
    data_order: str


# the runs of one setting, by seed
Runs = Mapping[str, Measured]


class Verdict(NamedTuple):
    """The difference `first - second` between two settings, and the interval that holds it.

    `kind` says how it was found: over `num` pairs of runs with the same seed that read the same data in the same order;
    from the intervals of both settings, the smaller of which has `num` runs; or not at all (None).
    """

    first: str
    second: str
    kind: str
    num: int
    difference: float
    interval: tuple[float, float] | None

    @property
    def is_apart(self) -> bool:
        """Say whether the two are to be called different."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def compare_all(settings: Mapping[str, Runs]) -> list[Verdict]:
    """Compare every two of `settings`, by name.

    All intervals hold together with a probability of 95 %: each of n comparisons is held to 1 - 0.05 / n (Bonferroni),
    so that a sweep over many equal settings calls none different in 19 of 20 cases.
    """
    pairs = list(combinations(settings, 2))
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(pairs))
    return [compare(first, settings[first], second, settings[second], confidence) for first, second in pairs]


def compare(first: str, one: Runs, second: str, other: Runs, confidence: float = CONFIDENCE) -> Verdict:
    """Compare two settings. Source: Student's interval of the mean of paired differences; unpaired, of each mean.

    A setting with a run whose value is not finite has no interval.

    Unpaired, two settings are apart where their own intervals do not overlap, which is stricter than a test of the
    difference.
    """
    values = [[run.value for run in runs.values()] for runs in (one, other)]
    num = min(map(len, values))
    if not all(map(math.isfinite, chain(*values))):
        return Verdict(first, second, NOT_FINITE, num, math.nan, None)
    same = [seed for seed in one if seed in other and one[seed].data_order == other[seed].data_order != ""]
    differences = [one[seed].value - other[seed].value for seed in same]
    if len(differences) > 1:
        interval = interval_of_mean(differences, confidence)
        return Verdict(first, second, PAIRED, len(differences), fmean(differences), interval)
    difference = fmean(values[0]) - fmean(values[1])
    if num < 2:
        return Verdict(first, second, TOO_FEW, num, difference, None)
    (low, high), (other_low, other_high) = (interval_of_mean(each, confidence) for each in values)
    return Verdict(first, second, UNPAIRED, num, difference, (low - other_high, high - other_low))


def interval_of_mean(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval that holds the mean behind two or more normal `values`. Source: Student, 1908."""
    half = student_quantile(confidence, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


@lru_cache
def student_quantile(probability: float, degrees: int) -> float:
    """Return t such that Student's variable of `degrees` degrees of freedom lies in [-t, t] with `probability`."""
    low, high = 0.0, 1.0
    while _student_inside(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_inside(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def _student_inside(t: float, degrees: int) -> float:
    """Return the probability of [-t, t]. Source: Abramowitz and Stegun, equations 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, total = math.cos(angle), 0.0
    odd = degrees % 2
    term = cosine if odd else 1.0
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * power / (power + 1)
    inside = math.sin(angle) * total
    return 2 / math.pi * (angle + inside) if odd else inside


def render_verdicts(verdicts: Sequence[Verdict]) -> str:
    """Write one line for each comparison: the settings, the difference with its interval, the verdict in words."""
    rows = []
    for each in verdicts:
        interval = "" if each.interval is None else f"[{each.interval[0]:+.4f}, {each.interval[1]:+.4f}]"
        counted = f"{each.num} {'pairs' if each.kind == PAIRED else 'runs'}, {each.kind}"
        rows.append([f"{each.first} - {each.second}", f"{each.difference:+.4f} {interval}", counted, describe(each)])
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows
    )


def describe(verdict: Verdict) -> str:
    """Say what may be said about two settings."""
    if verdict.is_apart:
        return f"apart: {verdict.first if verdict.difference < 0 else verdict.second} is lower"
    return "not apart"
