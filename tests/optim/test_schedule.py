"""A schedule is a pure function of the progress of a run, with known values at known steps and no jumps."""

import math
from itertools import pairwise

import pytest

from nested_learning.errors import ConfigError
from nested_learning.optim.schedule import KINDS, Extent, ScheduleConfig, factor

CONSTANT = {"kind": "constant", "warmup": 0.1, "final": 1.0}
COSINE = {"kind": "cosine", "warmup": 0.1, "final": 0.1}
LINEAR = {"kind": "linear", "warmup": 0.1, "final": 0.1}
WSD = {"kind": "wsd", "warmup": 0.1, "decay": 0.2, "final": 0.1}
# tokens that a step reads
TOKENS = 50

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
    (LINEAR, 0, 0.1),
    (LINEAR, 9, 1.0),
    (LINEAR, 10, 0.99),
    (LINEAR, 54, 0.55),
    (LINEAR, 99, 0.1),
    (WSD, 0, 0.1),
    (WSD, 9, 1.0),
    (WSD, 79, 1.0),
    (WSD, 80, 0.955),
    (WSD, 89, 0.55),
    (WSD, 94, 0.325),
    (WSD, 98, 0.145),
    (WSD, 99, 0.1),
    (WSD | {"start": 0.5}, 0, 0.55),
    (WSD | {"start": 0.5}, 9, 1.0),
]
# the same courses, said in steps and in tokens of a run of 100 steps
IN_STEPS = {"unit": "steps", "warmup": 10.0, "decay": 20.0}
IN_TOKENS = {"unit": "tokens", "warmup": 10.0 * TOKENS, "decay": 20.0 * TOKENS}


def at(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """Return the factor at `step` of a run of `steps`."""
    return factor(schedule, Extent(step + 1, (step + 1) * TOKENS), Extent(steps, steps * TOKENS))


@pytest.mark.parametrize("unit", [{}, IN_STEPS, IN_TOKENS], ids=["share", "steps", "tokens"])
@pytest.mark.parametrize(("keys", "step", "expected"), GOLDEN)
def test_the_factor_has_its_known_value(keys, step, expected, unit):
    assert at(ScheduleConfig(**keys | unit), step, 100) == pytest.approx(expected, abs=1e-12)


def test_tokens_are_counted_where_steps_read_different_numbers_of_them():
    schedule = ScheduleConfig(kind="wsd", warmup=100.0, decay=400.0, unit="tokens", final=0.0)
    tokens = [50, 100, 200, 400, 600, 700, 900, 1000]
    factors = [factor(schedule, Extent(step + 1, done), Extent(8, 1000)) for step, done in enumerate(tokens)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 0.75, 0.25, 0])


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize("final", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("steps", [2, 7, 100, 12345])
def test_the_last_step_has_the_final_rate_exactly(kind, final, steps):
    schedule = ScheduleConfig(kind=kind, warmup=0.05, decay=0.5, final=final)
    assert at(schedule, steps - 1, steps) == final
    assert at(schedule, steps + 5, steps) == final


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_of_n_warmup_steps_has_one_nth_of_the_value_and_the_last_all(kind):
    schedule = ScheduleConfig(kind=kind, warmup=0.25, decay=0.2, final=0.0)
    assert at(schedule, 0, 80) == 1 / 20
    assert at(schedule, 19, 80) == 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [0.0, 0.3])
def test_the_factor_rises_in_the_warmup_and_falls_after_it_without_jumps(kind, start):
    schedule = ScheduleConfig(kind=kind, warmup=0.1, decay=0.2, final=0.0, start=start)
    factors = [at(schedule, step, 1000) for step in range(1000)]
    assert max(abs(after - before) for before, after in pairwise(factors)) <= 1 / 100 + 1e-12
    assert all(after > before for before, after in pairwise(factors[:100]))
    assert all(after <= before for before, after in pairwise(factors[99:]))
    assert max(factors) == 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("warmup", "decay"), [(0, 0), (1, 0), (0, 1), (0.5, 0.5), (0.1, 0.9), (0.29, 0.71), (0.001, 0.001)]
)
@pytest.mark.parametrize("steps", [1, 2, 3, 15, 100])
def test_the_factor_is_always_a_number_between_0_and_1(kind, warmup, decay, steps):
    for unit, whole in (("share", 1), ("steps", steps), ("tokens", steps * TOKENS)):
        lengths = [float(part if unit == "share" else round(part * whole)) for part in (warmup, decay)]
        schedule = ScheduleConfig(kind=kind, warmup=lengths[0], decay=lengths[1], final=0.0, unit=unit)
        assert all(0 <= at(schedule, step, steps) <= 1 for step in range(steps + 2))


def test_without_decay_wsd_stays_at_the_peak():
    schedule = ScheduleConfig(kind="wsd", final=0.0)
    assert {at(schedule, step, 10) for step in range(10)} == {1.0}


def test_before_its_decay_a_schedule_in_steps_does_not_depend_on_the_length_of_the_run():
    keys = {"kind": "wsd", "warmup": 5.0, "unit": "steps", "final": 0.0}
    short, long = ScheduleConfig(decay=10.0, **keys), ScheduleConfig(decay=30.0, **keys)
    assert [at(short, step, 40) for step in range(30)] == [at(long, step, 100) for step in range(30)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "square"}, "optim.schedule.kind='square' must be one of"),
        ({"unit": "epochs"}, "optim.schedule.unit='epochs' must be one of"),
        ({"warmup": 100.0}, "optim.schedule.warmup=100.0 must lie in .* optim.schedule.unit=steps counts steps"),
        ({"decay": -0.1}, "optim.schedule.decay=-0.1"),
        ({"final": math.nan}, "optim.schedule.final=nan"),
        ({"start": 2.0}, "optim.schedule.start=2.0"),
        ({"unit": "steps"}, "optim.schedule.warmup=0.1 must be a whole number of steps"),
        ({"unit": "tokens", "warmup": math.inf}, "optim.schedule.warmup=inf must be a whole number of tokens"),
    ],
)
def test_an_invalid_schedule_is_refused_with_its_key(changed, message):
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(**WSD | changed).check("optim.schedule")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "wsd", "warmup": 0.5, "decay": 0.6}, "exceed the whole run: try optim.schedule.decay=0.5$"),
        ({"kind": "wsd", "warmup": 10.0, "decay": 91.0, "unit": "steps"}, "100 steps: try optim.schedule.decay=90$"),
        ({"kind": "cosine", "warmup": 101.0, "unit": "steps"}, "100 steps: try optim.schedule.warmup=100$"),
        ({"kind": "linear", "warmup": 5001.0, "unit": "tokens"}, "5000 tokens: try optim.schedule.warmup=5000$"),
    ],
)
def test_a_warmup_and_a_decay_longer_than_the_run_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(final=0.0, **keys).check_fits(Extent(100, 100 * TOKENS), "optim.schedule")


def test_a_decay_that_the_kind_does_not_read_may_have_any_length():
    ScheduleConfig(kind="cosine", warmup=0.5, decay=0.6, final=0.0).check_fits(Extent(1, 1), "optim.schedule")
