"""Forgetting and transfer of a loss matrix, compared with values computed directly."""

import pytest

from nested_learning.evals.continual.forgetting import forgetting_curves, forgetting_grid, forgetting_metrics
from nested_learning.evals.metrics import Metric, Samples

NAMES = ["a", "b", "c"]
# after 0, 1, 2, 3 domains: what a, b and c cost
COSTS = [[8.0, 7.0, 6.0], [3.0, 6.0, 5.5], [2.5, 2.0, 5.0], [4.0, 2.25, 1.0]]


def matrix(costs=COSTS, spread=0.5):
    """Two samples of each cell, `spread` below and above its cost."""
    return {
        (stage, domain): Samples([2 * (cost - spread), 2 * (cost + spread)], [2, 2], "lower")
        for stage, row in enumerate(costs)
        for domain, cost in enumerate(row)
    }


def values(metrics):
    computed = {name: each if isinstance(each, Metric) else each.metric() for name, each in metrics.items()}
    return {name: metric.value for name, metric in computed.items()}


@pytest.mark.parametrize("paired", [True, False])
def test_the_metrics_equal_their_definitions(paired):
    metrics = values(forgetting_metrics(NAMES, matrix(), paired=paired))
    assert {name: metrics[name] for name in ("bpb/0/a", "bpb/2/b", "bpb/3/c")} == {
        "bpb/0/a": 8.0,
        "bpb/2/b": 2.0,
        "bpb/3/c": 1.0,
    }
    # a was cheapest after two domains, not right after it was learned
    assert (metrics["forgetting/a"], metrics["forgetting/b"]) == (1.5, 0.25) and "forgetting/c" not in metrics
    assert metrics["forgetting"] == pytest.approx((1.5 + 0.25) / 2)
    assert metrics["bwt"] == pytest.approx(((3.0 - 4.0) + (2.0 - 2.25)) / 2)
    assert metrics["fwt"] == pytest.approx(((7.0 - 6.0) + (6.0 - 5.0)) / 2)
    assert metrics["learned"] == pytest.approx((3.0 + 2.0 + 1.0) / 3)
    assert metrics["final"] == pytest.approx((4.0 + 2.25 + 1.0) / 3)


def test_forgetting_is_zero_when_no_loss_rises_and_never_negative():
    better_and_better = [[8.0, 8.0, 8.0], [3.0, 7.0, 7.0], [2.0, 2.0, 6.0], [1.0, 1.0, 1.0]]
    metrics = values(forgetting_metrics(NAMES, matrix(better_and_better), paired=False))
    assert metrics["forgetting"] == metrics["forgetting/a"] == metrics["forgetting/b"] == 0
    assert metrics["bwt"] == pytest.approx((2.0 + 1.0) / 2)


def test_the_loss_on_a_domain_before_it_is_learned_does_not_count_as_forgetting():
    # b was cheaper after a than after itself
    metrics = values(forgetting_metrics(NAMES, matrix([[8, 8, 8], [3, 1, 8], [3, 2, 8], [3, 2.5, 1]]), paired=False))
    assert metrics["forgetting/b"] == 0.5 and metrics["bwt"] == pytest.approx(-0.25)


def test_standard_errors_of_differences_are_paired():
    # all samples of a cell differ from each other by as much in every cell: the differences do not differ at all
    metrics = forgetting_metrics(NAMES, matrix(spread=0.5), paired=False)
    assert metrics["forgetting/a"].metric().stderr == pytest.approx(0)
    assert metrics["forgetting"].stderr == pytest.approx(0)
    assert metrics["learned"].stderr == pytest.approx((3 * 0.5**2) ** 0.5 / 3) and metrics["learned"].n == 6
    readers = forgetting_metrics(NAMES, matrix(spread=0.5), paired=True)
    assert readers["learned"].metric().stderr == pytest.approx(0.5) and readers["learned"].metric().n == 2


def test_samples_that_are_not_paired_are_not_subtracted():
    wrong = matrix()
    wrong[3, 0] = Samples([1.0, 1.0], [2, 3], "lower")
    with pytest.raises(AssertionError, match="not paired"):
        forgetting_metrics(NAMES, wrong, paired=False)


def test_the_matrix_is_drawn_as_curves_and_as_a_map():
    (lines,) = forgetting_curves(NAMES, matrix()).values()
    assert [(x, y) for x, y, _ in lines["a"]] == [(0.0, 8.0), (1.0, 3.0), (2.0, 2.5), (3.0, 4.0)]
    grid = forgetting_grid(NAMES, matrix())
    assert grid.columns == NAMES and [list(row) for row in grid.values] == COSTS
