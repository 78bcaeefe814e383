"""Every metric has a standard error that agrees with the textbook formula."""

import math
from statistics import mean, stdev

import pytest

from nested_learning.evals.metrics import ratio


def test_with_equal_denominators_the_error_is_that_of_the_mean():
    values = [1.0, 4.0, 2.0, 5.0]
    metric = ratio([value * 8 for value in values], [8] * 4, "lower")
    assert metric.value == pytest.approx(mean(values))
    assert metric.stderr == pytest.approx(stdev(values) / math.sqrt(4))
    assert (metric.n, metric.better) == (4, "lower")


def test_samples_without_a_denominator_do_not_count():
    assert ratio([2.0, 0.0, 6.0], [1, 0, 1], "lower") == ratio([2.0, 6.0], [1, 1], "lower")


def test_one_sample_has_no_error():
    assert ratio([3.0], [2], "lower").stderr is None


def test_a_constant_ratio_has_no_error_whatever_the_sizes():
    metric = ratio([2.0, 6.0, 20.0], [1, 3, 10], "higher")
    assert metric.value == 2 and metric.stderr == 0
