"""The mean of the figures of several tasks, each of which counts the same however many questions it has."""

from collections.abc import Sequence
from statistics import fmean

from nested_learning.evals.protocol import Samples


def mean_of_means(groups: Sequence[Sequence[float | int]], better: str, chance: float | None = None) -> Samples:
    """Return the mean of the means of `groups`; its error is that of stratified samples, within groups only.

    Each value stands for as much as it counts, moved so that all groups have one mean; so two such figures over the
    same samples can be compared pair by pair. Source: W. Cochran, Sampling Techniques, 5.4.
    """
    means = [fmean(group) for group in groups]
    value, total = fmean(means), sum(map(len, groups))
    moved = [
        value + (each - mean) * total / (len(groups) * len(group))
        for group, mean in zip(groups, means, strict=True)
        for each in group
    ]
    return Samples.mean(moved, better, chance)
