"""What every learning rule must satisfy; a new rule joins by one line in CASES."""

import pytest
import torch

from nested_learning import tree
from nested_learning.ops.rules import RULES
from nested_learning.ops.rules.dgd import DGDState
from nested_learning.ops.rules.functions import FUNCTIONS
from nested_learning.optim.updates import FAST, naive_update

USUAL = {"lr": 0.05, "weight_decay": 0.1}
CASES = {
    "gd": USUAL,
    "momentum": USUAL | {"momentum": 0.9},
    "preconditioned_momentum": USUAL | {"momentum": 0.9, "beta": 0.95, "eps": 1e-8},
    "delta_momentum": USUAL | {"momentum": 0.9, "erase": 0.5},
    "deep_momentum": USUAL | {"memory_lr": 0.5, "retention": 0.99},
    "dgd": USUAL | {"input_decay": 0.2},
    "adamw": USUAL | {"betas": [0.9, 0.95], "eps": 1e-8},
    "muon": USUAL | {"momentum": 0.9},
    "m3": USUAL | {"slow_weight": 0.5, "slow_every": 2, "eps": 1e-3},
}
SHAPES = [(4, 4), (3, 7), (9, 2), (2, 5, 3)]

every_rule = pytest.mark.parametrize("rule", CASES)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(rule: str, g: torch.Tensor) -> dict[str, torch.Tensor]:
    """Give a rule that reads inputs two of them for each row, the same for the same gradient; none to other rules."""
    if not RULES[rule].reads_inputs:
        return {}
    weights = torch.stack([torch.linspace(-1, 1, g.shape[-2]), torch.ones(g.shape[-2])]).to(g)
    return {"x": (weights @ g).clamp(-1, 1)}


def update(rule: str, w: torch.Tensor, g: torch.Tensor, state, **keywords) -> tuple:
    return FUNCTIONS[rule].update(w, g, state, **inputs(rule, g), **CASES[rule] | keywords)


def advance(rule: str, w: torch.Tensor, num_steps: int, seed: int = 10) -> tuple:
    state = FUNCTIONS[rule].init(w)
    for step in range(num_steps):
        w, state = update(rule, w, random(*w.shape, seed=seed + step), state)
    return w, state


def test_every_rule_has_a_case():
    assert CASES.keys() == RULES.keys()


@every_rule
def test_a_rule_changes_none_of_its_arguments(rule):
    w, state = advance(rule, random(4, 6, seed=0), 2)
    g = random(4, 6, seed=1)
    before = tree.map(torch.clone, (w, g, state))
    update(rule, w, g, state)
    assert tree.named_leaves(before).keys() == tree.named_leaves((w, g, state)).keys()
    for old, new in zip(tree.leaves(before), tree.leaves((w, g, state)), strict=True):
        assert torch.equal(old, new)


@every_rule
def test_rows_learn_as_if_each_were_alone(rule):
    w = random(3, 4, 6, seed=0)
    state = FUNCTIONS[rule].init(w)
    alone = [(row, FUNCTIONS[rule].init(row)) for row in w]
    for step in range(3):
        g = random(3, 4, 6, seed=step + 1)
        w, state = update(rule, w, g, state)
        alone = [update(rule, w1, g1, s1) for g1, (w1, s1) in zip(g, alone, strict=True)]
    torch.testing.assert_close(w, torch.stack([w1 for w1, _ in alone]), atol=1e-12, rtol=0)


@every_rule
def test_a_row_of_the_state_is_the_state_of_that_row(rule):
    w, state = advance(rule, random(3, 4, 6, seed=0), 2)
    index, g = torch.tensor([2, 0]), random(3, 4, 6, seed=5)
    expected, _ = update(rule, w, g, state)
    found, _ = update(rule, w[index], g[index], tree.select_rows(state, index))
    torch.testing.assert_close(found, expected[index], atol=1e-12, rtol=0)


@every_rule
def test_a_gradient_of_zero_moves_weights_by_their_decay_alone(rule):
    w = random(4, 6, seed=0)
    moved, state = update(rule, w, torch.zeros_like(w), FUNCTIONS[rule].init(w))
    torch.testing.assert_close(moved, w * (1 - CASES[rule]["lr"] * CASES[rule]["weight_decay"]), atol=1e-12, rtol=0)
    assert all(leaf.isfinite().all() for leaf in tree.leaves(state))


@every_rule
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
def test_weights_stay_finite_whatever_the_size_of_the_gradient(rule, scale):
    w = random(4, 6, seed=0).float()
    state = FUNCTIONS[rule].init(w)
    for step in range(3):
        w, state = update(rule, w, scale * random(4, 6, seed=step).float(), state)
    assert all(leaf.isfinite().all() for leaf in (w, *tree.leaves(state)))


@every_rule
def test_a_rate_of_zero_changes_nothing(rule):
    w = random(4, 6, seed=0)
    moved, _ = update(rule, w, random(4, 6, seed=1), FUNCTIONS[rule].init(w), lr=0.0)
    assert torch.equal(moved, w)


@every_rule
def test_a_rule_goes_down_the_gradient(rule):
    w, target = random(4, 6, seed=0), random(4, 6, seed=1)
    state = FUNCTIONS[rule].init(w)
    distance = (w - target).norm()
    for _ in range(20):
        w, state = update(rule, w, w - target, state, weight_decay=0.0)
    assert (w - target).norm() < 0.95 * distance


@every_rule
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_gradient_flows_through_updates_and_stays_finite_even_from_zero(rule, scale):
    w, g = random(2, 4, 6, seed=0).requires_grad_(), (scale * random(2, 4, 6, seed=1)).requires_grad_()
    once, state = update(rule, w, g, FUNCTIONS[rule].init(w))
    twice, _ = update(rule, once, g, state)
    for found in torch.autograd.grad(twice.square().sum(), (w, g)):
        assert found.isfinite().all() and (scale == 0.0 or found.abs().sum() > 0)


@every_rule
def test_the_gradient_through_two_updates_is_that_of_differences(rule):
    def two(w: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        once, state = update(rule, w, g, FUNCTIONS[rule].init(w))
        return update(rule, once, g * once, state)[0]

    points = (random(3, 2, seed=0).requires_grad_(), random(3, 2, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(two, points)


@every_rule
def test_every_row_may_have_a_rate_of_its_own(rule):
    w, g = random(2, 4, 6, seed=0), random(2, 4, 6, seed=1)
    rates = torch.tensor([0.1, 0.02], dtype=torch.float64)
    together, _ = update(rule, w, g, FUNCTIONS[rule].init(w), lr=rates[:, None, None])
    for row, rate in enumerate(rates.tolist()):
        alone, _ = update(rule, w[row], g[row], FUNCTIONS[rule].init(w[row]), lr=rate)
        torch.testing.assert_close(together[row], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("rule", sorted(FAST.keys() - {"dgd"}))
def test_the_fast_path_equals_the_readable_rule(rule):
    shapes = [*SHAPES, *SHAPES]
    slow, fast = ([random(*shape, seed=seed) for seed, shape in enumerate(shapes)] for _ in range(2))
    slow_states, fast_states = ([FUNCTIONS[rule].init(w) for w in weights] for weights in (slow, fast))
    for step in range(4):
        gradients = [random(*shape, seed=100 * step + seed) for seed, shape in enumerate(shapes)]
        slow_states = naive_update(rule, slow, gradients, slow_states, **CASES[rule])
        fast_states = FAST[rule](fast, gradients, fast_states, **CASES[rule])
    for readable, quick in zip([*slow, *tree.leaves(slow_states)], [*fast, *tree.leaves(fast_states)], strict=True):
        torch.testing.assert_close(quick, readable, atol=1e-9, rtol=1e-9)
    assert [type(state) for state in slow_states] == [type(state) for state in fast_states]


def test_dgd_from_the_product_of_its_inputs_equals_the_readable_rule():
    shapes = [(4, 4), (3, 7), (9, 2)]
    weights = [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    gradients = [random(*shape, seed=seed + 10) for seed, shape in enumerate(shapes)]
    inputs = [random(5, shape[1], seed=seed + 20) for seed, shape in enumerate(shapes)]
    expected = [
        FUNCTIONS["dgd"].update(w, g, DGDState(), x=x, **CASES["dgd"])[0]
        for w, g, x in zip(weights, gradients, inputs, strict=True)
    ]
    FAST["dgd"](weights, gradients, [DGDState()] * 3, grams=[x.mT @ x for x in inputs], **CASES["dgd"])
    for found, wanted in zip(weights, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
