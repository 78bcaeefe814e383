"""The figures of a matrix, by hand."""

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


def values(figures):
    metrics = {name: each if isinstance(each, Metric) else each.metric() for name, each in figures.items()}
    return {name: metric.value for name, metric in metrics.items()}


@pytest.mark.parametrize("paired", [True, False])
def test_the_figures_are_those_of_the_definitions(paired):
    found = values(forgetting_metrics(NAMES, matrix(), paired=paired))
    assert {name: found[name] for name in ("bpb/0/a", "bpb/2/b", "bpb/3/c")} == {
        "bpb/0/a": 8.0,
        "bpb/2/b": 2.0,
        "bpb/3/c": 1.0,
    }
    # a was cheapest after two domains, not right after it was learned
    assert (found["forgetting/a"], found["forgetting/b"]) == (1.5, 0.25) and "forgetting/c" not in found
    assert found["forgetting"] == pytest.approx((1.5 + 0.25) / 2)
    assert found["bwt"] == pytest.approx(((3.0 - 4.0) + (2.0 - 2.25)) / 2)
    assert found["fwt"] == pytest.approx(((7.0 - 6.0) + (6.0 - 5.0)) / 2)
    assert found["learned"] == pytest.approx((3.0 + 2.0 + 1.0) / 3)
    assert found["final"] == pytest.approx((4.0 + 2.25 + 1.0) / 3)


def test_who_forgets_nothing_has_forgotten_0_and_never_less():
    better_and_better = [[8.0, 8.0, 8.0], [3.0, 7.0, 7.0], [2.0, 2.0, 6.0], [1.0, 1.0, 1.0]]
    found = values(forgetting_metrics(NAMES, matrix(better_and_better), paired=False))
    assert found["forgetting"] == found["forgetting/a"] == found["forgetting/b"] == 0
    assert found["bwt"] == pytest.approx((2.0 + 1.0) / 2)


def test_what_a_domain_cost_before_it_was_learned_is_not_forgotten():
    # b was cheaper after a than after itself
    found = values(forgetting_metrics(NAMES, matrix([[8, 8, 8], [3, 1, 8], [3, 2, 8], [3, 2.5, 1]]), paired=False))
    assert found["forgetting/b"] == 0.5 and found["bwt"] == pytest.approx(-0.25)


def test_errors_of_differences_are_those_of_pairs():
    # all samples of a cell differ from each other by as much in every cell: the differences do not differ at all
    found = forgetting_metrics(NAMES, matrix(spread=0.5), paired=False)
    assert found["forgetting/a"].metric().stderr == pytest.approx(0)
    assert found["forgetting"].stderr == pytest.approx(0)
    assert found["learned"].stderr == pytest.approx((3 * 0.5**2) ** 0.5 / 3) and found["learned"].n == 6
    readers = forgetting_metrics(NAMES, matrix(spread=0.5), paired=True)
    assert readers["learned"].metric().stderr == pytest.approx(0.5) and readers["learned"].metric().n == 2


def test_samples_that_are_no_pairs_are_not_subtracted():
    wrong = matrix()
    wrong[3, 0] = Samples([1.0, 1.0], [2, 3], "lower")
    with pytest.raises(AssertionError, match="not paired"):
        forgetting_metrics(NAMES, wrong, paired=False)


def test_the_matrix_is_drawn_as_curves_and_as_a_map():
    (lines,) = forgetting_curves(NAMES, matrix()).values()
    assert [(x, y) for x, y, _ in lines["a"]] == [(0.0, 8.0), (1.0, 3.0), (2.0, 2.5), (3.0, 4.0)]
    grid = forgetting_grid(NAMES, matrix())
    assert grid.columns == NAMES and [list(row) for row in grid.values] == COSTS
