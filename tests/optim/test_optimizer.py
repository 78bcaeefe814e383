"""The optimizer applies rules at their periods, agrees with torch's, and resumes from a saved state bit for bit."""

from collections.abc import Sequence

import pytest
import torch
from optim.shipped import SHIPPED, SLOW, give_gradients, group, optim, parameters, shipped, show_inputs

from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.level import Level
from nested_learning.ops.rules.functions import FUNCTIONS
from nested_learning.optim.build import build_optimizer
from nested_learning.optim.optimizer import Optimizer

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
]


def train(optimizer: Optimizer, named_parameters, steps: Sequence[int]) -> None:
    for step in steps:
        give_gradients(named_parameters, step)
        show_inputs(optimizer, step)
        optimizer.step(step)
        optimizer.zero_grad()


def snapshot(named_parameters) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in named_parameters}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_equals_the_adamw_of_torch_and_the_readable_rule(device, dtype):
    ours, theirs = parameters(dtype, device), parameters(dtype, device)
    optimizer = build_optimizer(optim(group(weight_decay=0.1)), ours, [], 100, 5)
    reference = torch.optim.AdamW([p for _, p in theirs], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    readable = [(p.detach().clone(), FUNCTIONS["adamw"].init(p.detach())) for _, p in ours]
    for step in range(5):
        train(optimizer, ours, [step])
        give_gradients(theirs, step)
        reference.step()
        readable = [
            FUNCTIONS["adamw"].update(w, p.grad, state, lr=0.01, weight_decay=0.1, betas=[0.9, 0.95], eps=1e-8)
            for (w, state), (_, p) in zip(readable, theirs, strict=True)
        ]
    for (_, our), (_, their), (w, _) in zip(ours, theirs, readable, strict=True):
        torch.testing.assert_close(our, their, atol=1e-6, rtol=0)
        torch.testing.assert_close(our.detach(), w, atol=1e-6, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_muon_equals_the_muon_of_torch_within_bfloat16(device):
    ours, theirs = ([(n, p) for n, p in parameters(device=device) if p.dim() == 2] for _ in range(2))
    before = snapshot(ours)
    optimizer = build_optimizer(optim(group(rule="muon", weight_decay=0.1)), ours, [], 100, 3)
    reference = torch.optim.Muon(
        [p for _, p in theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(3):
        train(optimizer, ours, [step])
        give_gradients(theirs, step)
        reference.step()
    for (name, our), (_, their) in zip(ours, theirs, strict=True):
        assert (our - their).norm() < 0.05 * (their - before[name]).norm(), name


def test_muon_equals_the_muon_of_torch_in_float32(monkeypatch):
    # torch's orthogonalises in bfloat16 everywhere, ours only on CUDA
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    ours, theirs = ([(n, p) for n, p in parameters() if p.dim() == 2] for _ in range(2))
    optimizer = build_optimizer(optim(group(rule="muon", weight_decay=0.1)), ours, [], 100, 5)
    reference = torch.optim.Muon(
        [p for _, p in theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(5):
        train(optimizer, ours, [step])
        give_gradients(theirs, step)
        reference.step()
    for (name, our), (_, their) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("shape", [(8, 3, 4), (5, 2, 3, 3)])
def test_a_flattened_convolution_is_updated_as_its_matrix_by_the_muon_of_torch(shape):
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.flatten(1).clone())
    optimizer = build_optimizer(optim(group(rule="muon", matrix="flatten")), [("convolution", ours)], [], 100, 3)
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        give_gradients([("convolution", ours)], step)
        theirs.grad = ours.grad.flatten(1).clone()
        optimizer.step(step)
        reference.step()
    moved, expected = ours.detach() - start, theirs.detach().view(shape) - start
    assert (moved - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("rule", ["muon", "m3", "delta_momentum", "deep_momentum"])
def test_a_batch_of_matrices_and_a_flattened_matrix_are_updated_differently(rule):
    keys = {
        "m3": {"slow_weight": 0.5, "slow_every": 2, "eps": 0.1},
        "delta_momentum": {"momentum": 0.9, "erase": 1.0},
        "deep_momentum": {"memory_lr": 0.5, "retention": 1.0},
    }.get(rule, {})
    batch, flat = (torch.nn.Parameter(torch.ones(4, 3, 5)) for _ in range(2))
    for parameter, matrix in ((batch, "batch"), (flat, "flatten")):
        optimizer = build_optimizer(
            optim(group(rule=rule, **keys | {"matrix": matrix})), [("memory", parameter)], [], 100, 3
        )
        train(optimizer, [("memory", parameter)], range(3))
    assert batch.isfinite().all() and flat.isfinite().all()
    assert not torch.equal(batch, flat)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("device", DEVICES)
def test_a_shipped_optimizer_moves_every_parameter_and_keeps_it_finite(name, device):
    named = parameters(device=device)
    before = snapshot(named)
    train(build_optimizer(shipped(name), named, [SLOW], 100, 3), named, range(3))
    for key, parameter in named:
        assert parameter.isfinite().all(), key
        assert not torch.equal(parameter, before[key]), key


@pytest.mark.parametrize(
    ("period", "tokens_per_step", "updates"),
    [
        (0, 100, range(12)),
        (100, 100, range(12)),
        (30, 100, range(12)),
        (150, 100, [1, 2, 4, 5, 7, 8, 10, 11]),
        (300, 100, [2, 5, 8, 11]),
        (250, 100, [2, 4, 7, 9]),
    ],
)
def test_a_group_updates_exactly_once_a_period(period, tokens_per_step, updates):
    named = parameters()
    optimizer = build_optimizer(optim(group(period=period)), named, [], tokens_per_step, 12)
    moved = []
    for step in range(12):
        before = snapshot(named)
        train(optimizer, named, [step])
        if not torch.equal(named[0][1], before[named[0][0]]):
            moved.append(step)
    assert moved == list(updates)


def test_a_period_counts_the_tokens_that_were_read_where_steps_differ():
    named = parameters()
    # three steps of 100 tokens, then steps of 300
    optimizer = build_optimizer(
        optim(group(period=400)), named, [], 100, 9, tokens_before=lambda n: 100 * n + 200 * max(0, n - 3)
    )
    moved = []
    for step in range(9):
        before = snapshot(named)
        train(optimizer, named, [step])
        if not torch.equal(named[0][1], before[named[0][0]]):
            moved.append(step)
    # read after each step: 100 200 300 600 900 1200 1500 1800 2100
    assert moved == [3, 4, 5, 7, 8]


@pytest.mark.parametrize("rule", ["adamw", "muon"])
def test_a_slow_group_steps_with_the_mean_of_the_gradients_since_its_last_update(rule):
    slow, fast = ([(n, p) for n, p in parameters(torch.float64) if p.dim() >= 2] for _ in range(2))
    optimizer = build_optimizer(optim(group(rule=rule, period=250)), slow, [], 100, 12)
    reference = build_optimizer(optim(group(rule=rule)), fast, [], 100, 12)
    train(optimizer, slow, range(5))
    for number, steps in enumerate([(0, 1, 2), (3, 4)]):
        gradients = []
        for step in steps:
            give_gradients(fast, step)
            gradients.append([p.grad for _, p in fast])
        for (_, parameter), *each in zip(fast, *gradients, strict=True):
            parameter.grad = torch.stack(each).mean(0)
        reference.step(number)
    for (_, our), (_, their) in zip(slow, fast, strict=True):
        torch.testing.assert_close(our, their, atol=1e-12, rtol=0)


def test_a_level_of_the_model_does_not_change_between_its_updates_while_others_learn():
    named = parameters()
    optimizer = build_optimizer(shipped("mixed_muon"), named, [SLOW], 100, 6)
    before = snapshot(named)
    train(optimizer, named, range(2))
    still = {name for name, parameter in named if torch.equal(parameter, before[name])}
    assert still == {name for name, _ in named if ".slow." in name}
    train(optimizer, named, [2])
    assert all(not torch.equal(parameter, before[name]) for name, parameter in named)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_saved_state_resumes_bit_for_bit_in_the_middle_of_a_period(name, stop):
    levels = [Level("slow", 250, SLOW.match)]
    whole, first = parameters(), parameters()
    optimizer = build_optimizer(shipped(name), whole, levels, 100, 8)
    train(optimizer, whole, range(8))
    stopped = build_optimizer(shipped(name), first, levels, 100, 8)
    train(stopped, first, range(stop))
    saved = {key: tensor.clone() for key, tensor in stopped.state_dict().items()}

    second = [(key, torch.nn.Parameter(tensor)) for key, tensor in snapshot(first).items()]
    resumed = build_optimizer(shipped(name), second, levels, 100, 8)
    resumed.load_state_dict(saved)
    train(resumed, second, range(stop, 8))
    for (key, expected), (_, actual) in zip(whole, second, strict=True):
        assert torch.equal(expected, actual), key
    for key, expected in optimizer.state_dict().items():
        assert torch.equal(expected, resumed.state_dict()[key]), key


@pytest.mark.parametrize("device", DEVICES)
def test_every_part_of_the_saved_state_matters(device):
    levels = [Level("slow", 250, SLOW.match)]

    def finish(change: str | None) -> dict[str, torch.Tensor]:
        named = parameters(device=device)
        optimizer = build_optimizer(shipped("mixed_muon"), named, levels, 100, 8)
        train(optimizer, named, range(4))
        saved = {key: torch.zeros_like(t) if key == change else t.clone() for key, t in optimizer.state_dict().items()}
        resumed = build_optimizer(shipped("mixed_muon"), named, levels, 100, 8)
        resumed.load_state_dict(saved)
        train(resumed, named, range(4, 6))
        return snapshot(named)

    expected = finish(None)
    keys = build_optimizer(shipped("mixed_muon"), parameters(), levels, 100, 8).state_dict()
    for key in keys:
        changed = finish(key)
        assert any(not torch.equal(expected[name], changed[name]) for name in expected), key


def test_loading_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    optimizer = build_optimizer(shipped("mixed_muon"), parameters(), [SLOW], 100, 8)
    good = {key: tensor.clone() for key, tensor in optimizer.state_dict().items()}
    key = "blocks.0.mixer.query.weight/momentum"
    for bad, message in [
        ({k: t for k, t in good.items() if k != key}, f"lacks {key}"),
        (good | {"ghost/mean": torch.zeros(1)}, "ghost/mean"),
        (
            good | {key: torch.zeros(2, 2)},
            rf"{key} is torch.float32 of shape \(2, 2\), not torch.float32 of shape \(6, 6\)",
        ),
        (good | {key: good[key].double()}, f"{key} is torch.float64"),
    ]:
        bad = {k: t + 1 for k, t in bad.items()}
        with pytest.raises(CheckpointError, match=message):
            optimizer.load_state_dict(bad)
        assert all(torch.equal(tensor, good[k]) for k, tensor in optimizer.state_dict().items())


@pytest.mark.parametrize("period", [0, 250])
def test_a_parameter_without_a_gradient_does_not_change(period):
    named = parameters()
    optimizer = build_optimizer(optim(group(weight_decay=0.1, period=period)), named, [], 100, 6)
    before, (name, parameter) = snapshot(named), named[2]
    for step in range(6):
        give_gradients(named, step)
        parameter.grad = None
        optimizer.step(step)
    assert torch.equal(parameter, before[name])
    assert not torch.equal(named[0][1], before[named[0][0]])


def test_the_rate_follows_the_schedule_in_every_group_alike():
    optimizer = build_optimizer(
        optim(group("norms", "norm", lr=0.5), group("rest", lr=0.1), kind="wsd", warmup=0.5, decay=0.5, final=0.0),
        parameters(),
        [SLOW],
        100,
        8,
    )
    assert optimizer.lr(0) == pytest.approx({"norms": 0.125, "norms/slow": 0.125, "rest": 0.025, "rest/slow": 0.025})
    assert optimizer.lr(3) == {"norms": 0.5, "norms/slow": 0.5, "rest": 0.1, "rest/slow": 0.1}
    assert set(optimizer.lr(7).values()) == {0.0}


def test_a_step_uses_the_rate_of_the_schedule():
    slow, fast = parameters(torch.float64), parameters(torch.float64)
    train(build_optimizer(optim(group(lr=0.01), warmup=0.5), slow, [], 100, 8), slow, [1])
    train(build_optimizer(optim(group(lr=0.005)), fast, [], 100, 8), fast, [1])
    for (_, our), (_, their) in zip(slow, fast, strict=True):
        torch.testing.assert_close(our, their, atol=1e-14, rtol=0)


def test_the_table_counts_all_parameters_and_lists_each_period():
    named = parameters()
    rows = build_optimizer(shipped("mixed_muon"), named, [SLOW], 100, 8).table()
    assert sum(row[-1] for row in rows) == sum(parameter.numel() for _, parameter in named)
    assert sum(row[-2] for row in rows) == len(named)
    assert ("matrices/slow", "muon", 0.01, 0.1, 300, 1, 72) in rows


def test_zero_grad_sets_gradients_to_none():
    named = parameters()
    give_gradients(named, 0)
    build_optimizer(optim(group()), named, [], 100, 8).zero_grad()
    assert all(parameter.grad is None for _, parameter in named)


def test_a_run_without_steps_is_refused():
    with pytest.raises(ConfigError, match="steps=0"):
        build_optimizer(optim(group()), parameters(), [], 100, 0)
