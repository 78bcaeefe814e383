"""The running mean: no bias to its start, the same however often it is logged, half as much after a half-life."""

import pytest

from nested_learning.logger.smoothing import Smoothed


def test_after_one_value_it_is_that_value_and_constants_stay():
    assert Smoothed(100.0).add(7, 3.25) == 3.25
    constant = Smoothed(100.0)
    assert [constant.add(tokens, 2.0) for tokens in (5, 300, 301, 10**6)] == pytest.approx([2.0] * 4, rel=1e-12)


def test_a_value_counts_half_as_much_one_half_life_later():
    mean = Smoothed(100.0)
    mean.add(100, 0.0)
    # weights 1/4 and 1/2 of all that came before and after, of 3/4
    assert mean.add(200, 3.0) == pytest.approx(2.0)


def test_the_mean_does_not_depend_on_how_often_a_loss_is_logged():
    often, seldom = Smoothed(100.0), Smoothed(100.0)
    for tokens in range(10, 101, 10):
        often.add(tokens, 1.0)
    seldom.add(100, 1.0)
    assert often.add(200, 5.0) == pytest.approx(seldom.add(200, 5.0), rel=1e-12)
