"""Verdicts: two settings are called different where their intervals are apart, and nowhere else."""

import random

import pytest

from nested_learning.report.verdicts import (
    PAIRED,
    TOO_FEW,
    UNPAIRED,
    Measured,
    Runs,
    compare,
    compare_all,
    describe,
    interval_of_mean,
    render_verdicts,
    student_quantile,
)


def runs(*values: float, order: str = "order of seed {}") -> Runs:
    """Make the runs of a setting, with seeds 0, 1, ..."""
    return {str(seed): Measured(value, order.format(seed)) for seed, value in enumerate(values)}


def noisy(pick: random.Random, mean: float, *, num: int = 3) -> Runs:
    """Draw runs whose seeds matter, as they do: half of the noise is the data's and shared by settings."""
    return runs(*(mean + random.Random(seed).gauss(0, 0.01) + pick.gauss(0, 0.01) for seed in range(num)))


# Student's two-sided table
@pytest.mark.parametrize(
    "probability, degrees, quantile",
    [(0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 3, 3.182), (0.95, 10, 2.228), (0.99, 7, 3.499), (0.95, 120, 1.980)],
)
def test_quantiles_are_those_of_the_table(probability: float, degrees: int, quantile: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(quantile, abs=6e-4)


def test_the_interval_holds_the_mean_in_19_of_20_cases() -> None:
    pick = random.Random(0)
    inside = 0
    for _ in range(4000):
        low, high = interval_of_mean([pick.gauss(7, 2) for _ in range(4)])
        inside += low <= 7 <= high
    # three standard deviations of the count
    assert inside / 4000 == pytest.approx(0.95, abs=0.0104)


def test_runs_with_the_same_seed_on_the_same_data_are_paired() -> None:
    # seeds differ by far more than the settings do
    one, other = runs(1.0, 2.0, 3.0), runs(1.11, 2.09, 3.10)
    verdict = compare("a", one, "b", other)
    assert (verdict.kind, verdict.num, verdict.is_apart) == (PAIRED, 3, True)
    assert verdict.difference == pytest.approx(-0.1) and describe(verdict) == "apart: a is lower"


def test_runs_with_another_order_of_the_data_are_not_paired() -> None:
    one, other = runs(1.0, 2.0, 3.0), runs(1.11, 2.09, 3.10, order="another {}")
    verdict = compare("a", one, "b", other)
    assert (verdict.kind, verdict.is_apart, describe(verdict)) == (UNPAIRED, False, "not apart")
    unknown = compare("a", runs(1.0, 2.0, order=""), "b", runs(1.1, 2.1, order=""))
    assert unknown.kind == UNPAIRED


def test_unpaired_settings_are_apart_where_their_own_intervals_are() -> None:
    one, near, far = runs(1.0, 1.1), runs(2.0, 2.1, order="b {}"), runs(3.0, 3.1, order="c {}")
    low, high = interval_of_mean([1.0, 1.1])
    assert low < 0.5 and 1.6 < high < 1.7
    # 2.05 - 0.64 < 1.05 + 0.64, 3.05 - 0.64 > 1.05 + 0.64
    assert not compare("one", one, "near", near).is_apart
    assert compare("one", one, "far", far).is_apart


def test_one_run_of_each_setting_gives_no_verdict() -> None:
    verdict = compare("a", runs(1.0), "b", runs(9.0))
    assert (verdict.kind, verdict.interval, verdict.is_apart) == (TOO_FEW, None, False)
    assert "not apart" in render_verdicts([verdict])


def test_a_setting_is_not_apart_from_itself() -> None:
    verdict = compare("a", runs(1.0, 2.0), "a again", runs(1.0, 2.0))
    assert verdict.interval == (0.0, 0.0) and not verdict.is_apart


def test_equal_settings_are_called_different_in_one_of_twenty_sweeps_at_most() -> None:
    """The same model 400 times over, by two and by five: false verdicts are counted by table, not by line."""
    for num_settings in (2, 5):
        pick = random.Random(num_settings)
        false = sum(
            any(each.is_apart for each in compare_all({str(i): noisy(pick, 3.0) for i in range(num_settings)}))
            for _ in range(400)
        )
        # 5 %, and three standard deviations of the count
        assert false / 400 <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_a_difference_of_three_percent_is_found() -> None:
    pick = random.Random(1)
    found = sum(compare("a", noisy(pick, 3.0), "b", noisy(pick, 2.91)).is_apart for _ in range(100))
    assert found >= 80
