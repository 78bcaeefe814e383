"""Metrics with error bars: ratios of sums over independent samples, their differences, and means over tasks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple


class Metric(NamedTuple):
    """A value, its standard error (None: unknown) and the number of samples behind it.

    `better` is "lower", "higher" or, for descriptive metrics, "neither". `chance` is the score of random guessing, or
    None where there is no such number.
    """

    value: float
    stderr: float | None
    n: int
    better: str
    chance: float | None = None


@dataclass(frozen=True)
class Samples:
    """The independent samples of one metric, which is the sum of `numerators` over the sum of `denominators`.

    Samples are in the order of the examples, so that two memory policies can be compared pair by pair.
    """

    numerators: Sequence[float | int]
    denominators: Sequence[float | int]
    better: str
    chance: float | None = None

    @classmethod
    def mean(cls, values: Sequence[float | int], better: str, chance: float | None = None) -> "Samples":
        """Return the samples of a mean."""
        return cls(values, [1] * len(values), better, chance)

    def metric(self) -> Metric:
        """Return the metric with its standard error."""
        return ratio(self.numerators, self.denominators, self.better)._replace(chance=self.chance)


def ratio(numerators: Sequence[float | int], denominators: Sequence[float | int], better: str) -> Metric:
    """Return the ratio of two sums over samples, such as nats per token over rows, with its standard error.

    The error is that of the linearised ratio (delta method); with equal denominators it is the error of the mean.
    Samples with denominator 0 do not count; at least one must be left. Source: W. Cochran, Sampling Techniques, 2.29.
    """
    pairs = [(top, bottom) for top, bottom in zip(numerators, denominators, strict=True) if bottom]
    n, total = len(pairs), math.fsum(bottom for _, bottom in pairs)
    value = math.fsum(top for top, _ in pairs) / total
    return Metric(value, _stderr([(top - value * bottom) / total for top, bottom in pairs]), n, better)


def difference(first: Samples, second: Samples) -> Metric:
    """Return `first - second` of two metrics over the same samples, with the standard error of the paired difference.

    The error is that of the differences of the linearised ratios. Raises ValueError where the samples are not paired.
    """
    one, other = first.metric(), second.metric()
    # pairing removes what both have in common: a hard example is hard under either policy
    pairs = zip(_residuals(first, one.value), _residuals(second, other.value), strict=True)
    stderr = _stderr([a - b for a, b in pairs])
    return Metric(one.value - other.value, stderr, one.n, first.better)


def mean_of_means(groups: Sequence[Sequence[float | int]], better: str, chance: float | None = None) -> Samples:
    """Return the mean of the means of `groups`: every task counts the same, however many examples it has.

    The standard error is that of stratified sampling, from the variance within groups only. Source: W. Cochran,
    Sampling Techniques, 5.4.
    """
    means = [fmean(group) for group in groups]
    value, total = fmean(means), sum(map(len, groups))
    # each value is scaled by its weight and moved to the common mean, so that the variance between groups drops out
    # and two such metrics over the same samples can still be compared pair by pair
    moved = [
        value + (each - mean) * total / (len(groups) * len(group))
        for group, mean in zip(groups, means, strict=True)
        for each in group
    ]
    return Samples.mean(moved, better, chance)


def _residuals(samples: Samples, value: float) -> list[float]:
    total = math.fsum(samples.denominators)
    pairs = zip(samples.numerators, samples.denominators, strict=True)
    return [(top - value * bottom) / total for top, bottom in pairs if bottom]


def _stderr(residuals: Sequence[float]) -> float | None:
    n = len(residuals)
    return math.sqrt(math.fsum(each * each for each in residuals) * n / (n - 1)) if n > 1 else None
