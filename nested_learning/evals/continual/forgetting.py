"""Forgetting metrics of a matrix: the bits per byte of each domain after each domain that was learned."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from nested_learning.evals.metrics import Metric, Samples
from nested_learning.evals.protocol import Grid, Panels

AXIS = "domains learned"

Lines = dict[str, list[tuple[float, float, float | None]]]
# (number of domains learned, index of the domain that is evaluated) -> bits per byte; 0 learned is the start
Matrix = Mapping[tuple[int, int], Samples]


def forgetting_metrics(names: Sequence[str], matrix: Matrix, *, paired: bool) -> dict[str, Samples | Metric]:
    """Return the metrics of `matrix`, in bits per byte; `names` are the domains in the order of learning.

    `bpb/<n>/<domain>`: after n domains. `forgetting/<domain>`: the final value minus the lowest since the domain was
    learned, 0 or more; `forgetting`: its mean over all domains but the last. `bwt`, backward transfer: the value right
    after learning minus the final one, below 0 where a domain was forgotten. `fwt`, forward transfer: the value at the
    start minus the one right before learning. `learned`: the mean right after learning; `final`: the mean at the end.
    With `paired`, sample k of every domain is the same session, and means are over sessions; otherwise the domains have
    independent samples. Source: Lopez-Paz and Ranzato, arXiv 1706.08840, section 2, and Chaudhry et al., arXiv
    1801.10112, section 3, with losses in place of accuracies.
    """
    last, domains = len(names), range(len(names))
    metrics: dict[str, Samples | Metric] = {
        f"bpb/{stage}/{names[domain]}": matrix[stage, domain] for stage in range(last + 1) for domain in domains
    }
    old = domains[:-1]
    forgotten = [less(matrix[last, domain], matrix[least(matrix, domain, last), domain], "lower") for domain in old]
    metrics |= {f"forgetting/{names[domain]}": each for domain, each in zip(old, forgotten, strict=True)}
    backward = [less(matrix[domain + 1, domain], matrix[last, domain], "higher") for domain in old]
    forward = [less(matrix[0, domain], matrix[domain, domain], "higher") for domain in domains[1:]]
    learned = [matrix[domain + 1, domain] for domain in domains]
    final = [matrix[last, domain] for domain in domains]
    means = {"forgetting": forgotten, "bwt": backward, "fwt": forward, "learned": learned, "final": final}
    return metrics | {name: mean(each, paired=paired) for name, each in means.items()}


def least(matrix: Matrix, domain: int, last: int) -> int:
    """Return the stage with the lowest value of `domain` since it was learned."""
    return min(range(domain + 1, last + 1), key=lambda stage: matrix[stage, domain].metric().value)


def less(one: Samples, other: Samples, better: str) -> Samples:
    """Return `one - other` over the same samples."""
    assert list(one.denominators) == list(other.denominators), "the samples are not paired"
    return Samples([a - b for a, b in zip(one.numerators, other.numerators, strict=True)], one.denominators, better)


def mean(parts: Sequence[Samples], *, paired: bool) -> Samples | Metric:
    """Return the mean of `parts`: over the sessions that they share, or over independent samples."""
    better = parts[0].better
    if paired:
        of_each = [
            [top / bottom for top, bottom in zip(each.numerators, each.denominators, strict=True)] for each in parts
        ]
        readers = zip(*of_each, strict=True)
        return Samples.mean([fmean(values) for values in readers], better)
    metrics = [part.metric() for part in parts]
    errors = [metric.stderr for metric in metrics if metric.stderr is not None]
    known = len(errors) == len(metrics)
    stderr = math.sqrt(math.fsum(error * error for error in errors)) / len(metrics) if known else None
    return Metric(fmean(metric.value for metric in metrics), stderr, sum(metric.n for metric in metrics), better)


def forgetting_curves(names: Sequence[str], matrix: Matrix) -> Panels:
    """Return a line for each domain, over the number of domains learned."""
    lines: Lines = {
        name: [(float(stage), *matrix[stage, domain].metric()[:2]) for stage in range(len(names) + 1)]
        for domain, name in enumerate(names)
    }
    return {"bits per byte": lines}


def forgetting_grid(names: Sequence[str], matrix: Matrix) -> Grid:
    """Return `matrix` as a grid for a heat map."""
    stages = range(len(names) + 1)
    values = [[matrix[stage, domain].metric().value for domain in range(len(names))] for stage in stages]
    return Grid(AXIS, list(stages), "domain", list(names), values)
