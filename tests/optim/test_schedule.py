"""The learning rate is a pure function of the step, with known values at known steps and no jumps."""

import math
from itertools import pairwise

import pytest

from nested_learning.errors import ConfigError
from nested_learning.optim.schedule import KINDS, ScheduleConfig, lr_factor

CONSTANT = {"kind": "constant", "warmup": 0.1, "decay": 0.0, "final": 1.0}
COSINE = {"kind": "cosine", "warmup": 0.1, "decay": 0.0, "final": 0.1}
WSD = {"kind": "wsd", "warmup": 0.1, "decay": 0.2, "final": 0.1}

GOLDEN = [
    (CONSTANT, 0, 0.1),
    (CONSTANT, 4, 0.5),
    (CONSTANT, 9, 1.0),
    (CONSTANT, 10, 1.0),
    (CONSTANT, 99, 1.0),
    (COSINE, 0, 0.1),
    (COSINE, 9, 1.0),
    (COSINE, 10, 0.1 + 0.9 * (1 + math.cos(math.pi / 90)) / 2),
    (COSINE, 39, 0.1 + 0.9 * 0.75),
    (COSINE, 54, 0.55),
    (COSINE, 69, 0.1 + 0.9 * 0.25),
    (COSINE, 99, 0.1),
    (WSD, 0, 0.1),
    (WSD, 9, 1.0),
    (WSD, 79, 1.0),
    (WSD, 80, 0.955),
    (WSD, 89, 0.55),
    (WSD, 94, 0.325),
    (WSD, 98, 0.145),
    (WSD, 99, 0.1),
]


@pytest.mark.parametrize(("keys", "step", "expected"), GOLDEN)
def test_the_factor_has_its_known_value(keys, step, expected):
    assert lr_factor(ScheduleConfig(**keys), step, 100) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["cosine", "wsd"])
@pytest.mark.parametrize("final", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("total_steps", [2, 7, 100, 12345])
def test_the_last_step_has_the_final_rate_exactly(kind, final, total_steps):
    schedule = ScheduleConfig(kind=kind, warmup=0.05, decay=0.5, final=final)
    assert lr_factor(schedule, total_steps - 1, total_steps) == final
    assert lr_factor(schedule, total_steps + 5, total_steps) == final


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_step_of_a_warmup_over_n_steps_has_one_nth(kind):
    assert lr_factor(ScheduleConfig(kind=kind, warmup=0.25, decay=0.2, final=0.0), 0, 80) == 1 / 20


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_no_jump_and_no_rise_after_the_warmup(kind):
    schedule = ScheduleConfig(kind=kind, warmup=0.1, decay=0.2, final=0.0)
    factors = [lr_factor(schedule, step, 1000) for step in range(1000)]
    assert max(abs(after - before) for before, after in pairwise(factors)) <= 1 / 100 + 1e-12
    assert all(after <= before for before, after in pairwise(factors[99:]))
    assert max(factors) == 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("warmup", "decay"), [(0, 0), (1, 0), (0, 1), (0.5, 0.5), (0.1, 0.9), (0.29, 0.71), (0.001, 0.001)]
)
@pytest.mark.parametrize("total_steps", [1, 2, 3, 15, 100])
def test_the_factor_is_always_a_number_between_0_and_1(kind, warmup, decay, total_steps):
    schedule = ScheduleConfig(kind=kind, warmup=float(warmup), decay=float(decay), final=0.0)
    assert all(0 <= lr_factor(schedule, step, total_steps) <= 1 for step in range(total_steps + 2))


def test_without_decay_wsd_stays_at_the_peak():
    schedule = ScheduleConfig(kind="wsd", warmup=0.0, decay=0.0, final=0.0)
    assert {lr_factor(schedule, step, 10) for step in range(10)} == {1.0}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "linear"}, "optim.schedule.kind='linear'"),
        ({"warmup": 100.0}, "optim.schedule.warmup=100"),
        ({"decay": -0.1}, "optim.schedule.decay=-0.1"),
        ({"final": math.nan}, "optim.schedule.final=nan"),
        ({"warmup": 0.5, "decay": 0.6}, "try optim.schedule.decay=0.5"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_by_its_key(changed, message):
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(**WSD | changed)
