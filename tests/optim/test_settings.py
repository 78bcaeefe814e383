"""Hyper-parameters follow their schedules, group by group, as pure functions of the step; weights are averaged."""

import pytest
import torch
from optim.shipped import SLOW, give_gradients, group, optim, parameters, shipped

from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.optim.build import build_optimizer
from nested_learning.optim.optimizer import Optimizer
from nested_learning.optim.schedule import ScheduleConfig

FALL = ScheduleConfig(kind="linear", final=0.0)
RISE = ScheduleConfig(kind="constant", final=1.0, start=0.5, warmup=4.0, unit="steps")


def scheduled() -> Optimizer:
    """Make an optimizer of two groups, of which the first has schedules of its own; rates fall by half over 8 steps."""
    first = group("matrices", rule="muon", lr=0.5, weight_decay=0.1, min_rank=2)
    first.schedules = {"weight_decay": FALL, "momentum": RISE}
    return build_optimizer(optim(first, group("rest", lr=0.1), kind="linear", final=0.5), parameters(), [SLOW], 100, 8)


def values(optimizer: Optimizer, key: str, name: str = "matrices") -> list[float]:
    (group,) = [each for each in optimizer.groups if each.name == name]
    return [optimizer.settings(group, step)[key] for step in range(8)]


def test_any_number_of_a_group_follows_a_schedule_of_its_own():
    optimizer = scheduled()
    assert values(optimizer, "weight_decay") == pytest.approx([0.1 * (7 - step) / 8 for step in range(8)])
    assert values(optimizer, "momentum") == pytest.approx([0.95 * x for x in (0.625, 0.75, 0.875, 1, 1, 1, 1, 1)])
    assert values(optimizer, "weight_decay", "rest") == [0.0] * 8
    assert values(optimizer, "eps", "rest") == [1e-8] * 8


def test_a_level_of_the_model_has_the_schedules_of_its_group():
    optimizer = scheduled()
    for key in ("lr", "weight_decay", "momentum"):
        assert values(optimizer, key, "matrices/slow") == values(optimizer, key)


def test_rates_keep_their_ratio_except_for_a_group_with_a_schedule_of_its_own():
    optimizer = scheduled()
    assert values(optimizer, "lr", "rest") == pytest.approx([0.2 * lr for lr in values(optimizer, "lr")], rel=1e-12)
    own = group("matrices", lr=0.5, min_rank=2)
    own.schedules = {"lr": FALL}
    optimizer = build_optimizer(optim(own, group("rest", lr=0.1)), parameters(), [], 100, 8)
    assert values(optimizer, "lr") == pytest.approx([0.5 * (7 - step) / 8 for step in range(8)])
    assert values(optimizer, "lr", "rest") == [0.1] * 8


def test_a_rule_is_called_with_the_scheduled_values():
    ours, theirs = ([(n, p) for n, p in parameters(torch.float64) if p.dim() == 2] for _ in range(2))
    falling = group(rule="muon", weight_decay=0.1)
    falling.schedules = {"weight_decay": FALL, "momentum": RISE}
    optimizer, state = build_optimizer(optim(falling), ours, [], 100, 8), None
    for step in range(8):
        settings = optimizer.settings(optimizer.groups[0], step)
        plain = optim(group(rule="muon", weight_decay=settings["weight_decay"], momentum=settings["momentum"]))
        by_hand = build_optimizer(plain, theirs, [], 100, 8)
        if state is not None:
            by_hand.load_state_dict(state)
        for each, named in ((optimizer, ours), (by_hand, theirs)):
            give_gradients(named, step)
            each.step(step)
        state = {key: tensor.clone() for key, tensor in by_hand.state_dict().items()}
    assert all(torch.equal(our, their) for (_, our), (_, their) in zip(ours, theirs, strict=True))


def test_a_resumed_run_has_the_same_hyper_parameters():
    optimizer, resumed = scheduled(), scheduled()
    resumed.load_state_dict(optimizer.state_dict())
    for step in (5, 0, 7, 3, 3):
        for before, after in zip(optimizer.groups, resumed.groups, strict=True):
            assert optimizer.settings(before, step) == resumed.settings(after, step)


def test_metrics_are_the_largest_rate_and_each_scheduled_value():
    optimizer = scheduled()
    assert optimizer.metrics(7) == pytest.approx(
        {
            "optim/lr": 0.25,
            "optim/lr/matrices": 0.25,
            "optim/lr/matrices/slow": 0.25,
            "optim/lr/rest": 0.05,
            "optim/lr/rest/slow": 0.05,
            "optim/weight_decay/matrices": 0.0,
            "optim/weight_decay/matrices/slow": 0.0,
            "optim/momentum/matrices": 0.95,
            "optim/momentum/matrices/slow": 0.95,
        }
    )


@pytest.mark.parametrize("key", ["betas", "slow_every", "period", "momentum", "weight"])
def test_only_a_number_that_the_rule_reads_has_a_schedule(key):
    with pytest.raises(ConfigError, match=rf"optim.groups.0.schedules.{key}: .*allowed: lr, weight_decay, eps$"):
        optim(group(schedules={key: FALL}))


def test_an_invalid_schedule_of_a_group_is_refused_with_its_key():
    with pytest.raises(ConfigError, match=r"^optim.groups.0.schedules.eps.final=2.0"):
        optim(group(schedules={"eps": ScheduleConfig(kind="linear", final=2.0)}))
    with pytest.raises(ConfigError, match=r"^optim.groups.0.schedules.lr.warmup=4 .* the run's 3 steps"):
        build_optimizer(optim(group(schedules={"lr": RISE})), parameters(), [], 100, 3)


def averaging(decay: float | None = 0.9) -> tuple[Optimizer, list[tuple[str, torch.nn.Parameter]]]:
    named, config = parameters(), shipped("mixed_muon")
    config.ema = decay
    return build_optimizer(config, named, [SLOW], 100, 8), named


def test_the_average_is_the_debiased_mean_of_the_weights_after_each_step():
    optimizer, named = averaging()
    total, weight = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in named}, 0.0
    for step in range(6):
        give_gradients(named, step)
        optimizer.step(step)
        weight = 0.9 * weight + 0.1
        for name, parameter in named:
            total[name] = 0.9 * total[name] + 0.1 * parameter.detach().double()
            expected = (total[name] / weight).float()
            torch.testing.assert_close(optimizer.state_dict()[f"{name}/ema"], expected, rtol=1e-5, atol=1e-6)
        if step == 0:
            assert all(torch.equal(optimizer.state_dict()[f"{name}/ema"], p.detach()) for name, p in named)


def test_parameters_are_the_average_inside_the_context_and_the_trained_ones_after_it():
    optimizer, named = averaging()
    for step in range(3):
        give_gradients(named, step)
        optimizer.step(step)
    before = {name: p.detach().clone() for name, p in named}
    average = {name: optimizer.state_dict()[f"{name}/ema"].clone() for name, _ in named}
    with pytest.raises(RuntimeError, match="inside"), optimizer.averaged():
        assert all(torch.equal(p, average[name]) and not torch.equal(p, before[name]) for name, p in named)
        raise RuntimeError("inside")
    assert all(torch.equal(p, before[name]) for name, p in named)
    assert all(torch.equal(optimizer.state_dict()[f"{name}/ema"], average[name]) for name, _ in named)


def test_averaging_does_not_change_training():
    finals = []
    for decay in (None, 0.9):
        optimizer, named = averaging(decay)
        for step in range(4):
            give_gradients(named, step)
            optimizer.step(step)
        finals.append([p.detach() for _, p in named])
    assert all(map(torch.equal, *finals))


def test_an_average_resumes_from_its_saved_state_bit_for_bit_and_its_absence_is_refused():
    whole, named = averaging()
    for step in range(6):
        give_gradients(named, step)
        whole.step(step)
        if step == 2:
            saved = {key: tensor.clone() for key, tensor in whole.state_dict().items()}
            weights = {name: p.detach().clone() for name, p in named}
    resumed, named = averaging()
    with torch.no_grad():
        for name, parameter in named:
            parameter.copy_(weights[name])
    resumed.load_state_dict(saved)
    for step in range(3, 6):
        give_gradients(named, step)
        resumed.step(step)
    expected = whole.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in resumed.state_dict().items())
    without, _ = averaging(None)
    with pytest.raises(CheckpointError, match=r"lacks .*\.weight/ema.* or optim.ema"):
        resumed.load_state_dict(without.state_dict())


@pytest.mark.parametrize("ema", [0.0, 1.0, -0.5, float("nan")])
def test_the_decay_of_an_average_lies_between_0_and_1(ema):
    config = optim(group())
    config.ema = ema
    with pytest.raises(ConfigError, match=r"optim.ema="):
        config.__post_init__()
