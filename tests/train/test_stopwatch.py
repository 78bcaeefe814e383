"""Every second belongs to one phase; time is counted across restarts, and time of discarded steps is lost."""

import random

import pytest

from nested_learning.train.stopwatch import PHASES, TRAINING, Stopwatch


class Ticks:
    """A clock that the test moves by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_every_phase_gets_its_own_sleep_and_they_sum_to_the_wall():
    ticks, draw = Ticks(), random.Random(0)
    watch = Stopwatch(now=ticks)
    slept = dict.fromkeys(PHASES, 0.0)
    for _ in range(50):
        name = draw.choice(PHASES)
        seconds = draw.uniform(0.1, 2.0)
        with watch.phase(name):
            ticks.sleep(seconds)
        slept[name] += seconds
    assert watch.read() == pytest.approx(slept)
    assert watch.wall() == pytest.approx(ticks.now - 100.0, rel=1e-12)
    assert watch.training() == pytest.approx(sum(slept[name] for name in TRAINING))


def test_time_inside_a_phase_inside_another_counts_once_and_between_phases_as_other():
    ticks = Ticks()
    watch = Stopwatch(now=ticks)
    ticks.sleep(1)
    with watch.phase("validation"):
        ticks.sleep(2)
        with watch.phase("log"):
            ticks.sleep(4)
        ticks.sleep(8)
    ticks.sleep(16)
    assert watch.read() == dict.fromkeys(PHASES, 0.0) | {"other": 17, "validation": 10, "log": 4}


def test_a_phase_that_fails_ends_too():
    ticks = Ticks()
    watch = Stopwatch(now=ticks)
    with pytest.raises(OSError), watch.phase("data"):
        ticks.sleep(1)
        raise OSError
    ticks.sleep(2)
    assert watch.read()["data"] == 1 and watch.read()["other"] == 2


def test_a_later_process_adds_to_earlier_seconds():
    ticks = Ticks()
    watch = Stopwatch(now=ticks)
    watch.add_earlier({"data": 3.0}, 5.0)
    with watch.phase("data"):
        ticks.sleep(1)
    assert watch.read()["data"] == 4 and watch.wall() == 9


def test_a_rollback_counts_later_seconds_as_lost_and_keeps_the_wall():
    ticks = Ticks()
    watch = Stopwatch(now=ticks)
    with watch.phase("forward_backward"):
        ticks.sleep(4)
    saved = watch.read()
    with watch.phase("optimizer"):
        ticks.sleep(3)
        watch.roll_back(saved)
        ticks.sleep(1)
    assert (watch.lost, watch.wall(), watch.training()) == (3, 8, 5)
    assert watch.read()["optimizer"] == 1


def test_an_unknown_phase_is_refused():
    with pytest.raises(AssertionError, match="lunch"), Stopwatch().phase("lunch"):
        pass
