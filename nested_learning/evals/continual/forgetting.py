"""What is forgotten: the figures of a matrix of bits per byte, of each domain after each domain that was learned."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from nested_learning.evals.metrics import Metric, Samples
from nested_learning.evals.protocol import Grid, Panels

AXIS = "domains learned"

Lines = dict[str, list[tuple[float, float, float | None]]]
# (how many domains were learned, the domain that is asked about): what it costs, 0 learned being the beginning
Matrix = Mapping[tuple[int, int], Samples]


def forgetting_metrics(names: Sequence[str], matrix: Matrix, *, paired: bool) -> dict[str, Samples | Metric]:
    """Return the figures of `matrix`; `names` are those of the domains, in the order in which they were learned.

    `bpb/<n>/<domain>`: after n domains, 0 before any. `forgetting/<domain>`: the last one less the least since the
    domain was learned, 0 or more; `forgetting`: its mean over all domains but the last; `bwt`, backward transfer: how
    much less they cost at the end than right after they were learned, below 0 where they were forgotten; `fwt`, forward
    transfer: how much less a domain costs right before it is learned than at the beginning; `learned`: what domains
    cost right after they were learned; `final`: at the end. With `paired`, sample k is the same reader of every domain,
    and means are over readers; else the samples of each domain are its own. Source: Lopez-Paz and Ranzato, arXiv
    1706.08840, section 2, and Chaudhry et al., arXiv 1801.10112, section 3, in terms of losses.
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
    """Return after how many domains `domain` cost least, from when it was learned on."""
    return min(range(domain + 1, last + 1), key=lambda stage: matrix[stage, domain].metric().value)


def less(one: Samples, other: Samples, better: str) -> Samples:
    """Return by how much `one` is above `other`, over the same samples."""
    assert list(one.denominators) == list(other.denominators), "the samples are no pairs"
    return Samples([a - b for a, b in zip(one.numerators, other.numerators, strict=True)], one.denominators, better)


def mean(parts: Sequence[Samples], *, paired: bool) -> Samples | Metric:
    """Return the mean of `figures`: over the readers that they share, or of independent samples."""
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
    """Lay `matrix` out as a line for each domain, over how many were learned."""
    lines: Lines = {
        name: [(float(stage), *matrix[stage, domain].metric()[:2]) for stage in range(len(names) + 1)]
        for domain, name in enumerate(names)
    }
    return {"bits per byte": lines}


def forgetting_grid(names: Sequence[str], matrix: Matrix) -> Grid:
    """Lay `matrix` out as a table, to draw it as a heat map."""
    stages = range(len(names) + 1)
    values = [[matrix[stage, domain].metric().value for domain in range(len(names))] for stage in stages]
    return Grid(AXIS, list(stages), "domain", list(names), values)
