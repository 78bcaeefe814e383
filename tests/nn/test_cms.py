"""The continuum memory: its three variants, and levels that write while they read."""

import pytest
import torch
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.level import Context, Level
from nested_learning.nn.cms import ContinuumMemory
from nested_learning.nn.init import initialise
from nested_learning.nn.level_state import LevelState, MLPWeights, advance, norm, write_gradient
from nested_learning.ops.rules import RULES
from nested_learning.ops.rules.functions import FUNCTIONS

DIM, HIDDEN, BATCH, PERIOD = 6, 4, 3, 4
RULE_OPTIONS = {
    "gd": {},
    "momentum": {"momentum": 0.9},
    "dgd": {"input_decay": 1.0},
    "adamw": {"betas": [0.9, 0.95], "eps": 1e-8},
    "muon": {"momentum": 0.9},
}


def clock(period=PERIOD, rule="gd", lr=0.1, signal="local", is_through=True, weight_decay=0.0) -> Context:
    return Context(period, rule, lr, weight_decay, tuple(RULE_OPTIONS[rule].items()), signal, is_through)


def make_cms(*levels: Level | str, variant: str = "sequential") -> ContinuumMemory:
    levels = [Level(level, 0, "") if isinstance(level, str) else level for level in levels]
    cms = ContinuumMemory(DIM, levels, HIDDEN, variant)
    initialise(cms, num_layers=1, seed=0)
    return cms.double()


def make_x(num_tokens: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, num_tokens, DIM, dtype=torch.float64, generator=generator)


def random_weights(level, seed: int = 1) -> MLPWeights:
    generator = torch.Generator().manual_seed(seed)
    shapes = (level.up.weight.shape, level.down.weight.shape)
    return MLPWeights(*(torch.randn(BATCH, *shape, generator=generator, dtype=torch.float64) for shape in shapes))


def written(state: LevelState, delta: MLPWeights) -> LevelState:
    """`state` as if `delta` had been written."""
    return state._replace(fast=(state.fast[0]._replace(delta=delta), *state.fast[1:]), writes=1)


def test_one_level_is_the_residual_swiglu_block_of_a_transformer():
    cms, x = make_cms("mlp"), make_x()
    level = cms.levels["mlp"]
    gate, value = (F.rms_norm(x, (DIM,)) @ level.up.weight.T).chunk(2, dim=-1)
    y, state = cms(x, cms.init_state(BATCH))
    assert torch.allclose(y, x + (F.silu(gate) * value) @ level.down.weight.T)
    assert state == (None,)


def test_levels_form_a_chain_in_their_order():
    cms, x = make_cms("fast", "slow"), make_x()
    y, _ = cms(x, cms.init_state(BATCH))
    middle = x + cms.levels["fast"](x, None)[0]
    assert torch.allclose(y, middle + cms.levels["slow"](middle, None)[0])


def test_independent_levels_read_the_same_and_are_summed_with_a_learned_weight_each():
    cms, x = make_cms("fast", "mid", "slow", variant="independent"), make_x()
    cms.scale.data = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    y, _ = cms(x, cms.init_state(BATCH))
    fast, mid, slow = (cms.levels[name](x, None)[0] for name in ("fast", "mid", "slow"))
    assert torch.allclose(y, x + fast - 2 * mid + 0.5 * slow)
    y.sin().sum().backward()
    assert (cms.scale.grad != 0).all()


def test_a_row_reads_with_the_shared_weights_plus_its_own_change():
    cms, x = make_cms(Level("mlp", 0, "", clock())), make_x()
    level, (state,) = cms.levels["mlp"], cms.init_state(BATCH)
    delta = random_weights(level)
    y, _ = cms(x, (written(state, delta),), write=False)
    for row in range(BATCH):
        changed = make_cms(Level("mlp", 0, "", clock()))
        changed.levels["mlp"].up.weight.data += delta.up[row]
        changed.levels["mlp"].down.weight.data += delta.down[row]
        alone, _ = changed(x[row : row + 1], changed.init_state(1), write=False)
        assert torch.allclose(y[row : row + 1], alone)
    assert not torch.allclose(y, cms(x, (state,), write=False)[0])


def test_a_change_of_zero_reads_as_no_change():
    cms, x = make_cms(Level("mlp", 0, "", clock())), make_x()
    (state,) = cms.init_state(BATCH)
    zero = MLPWeights(*(torch.zeros_like(matrix) for matrix in random_weights(cms.levels["mlp"])))
    y, _ = cms(x, (written(state, zero),), write=False)
    assert torch.allclose(y, cms(x, (state,), write=False)[0], atol=1e-15)


def mlp(x, up, down):
    gate, value = (x @ up.mT).chunk(2, dim=-1)
    hidden = F.silu(gate) * value
    return hidden @ down.mT, hidden


def local_loss(level, x, up, down):
    z = level.norm(x)
    key = F.rms_norm(level.key(z), (DIM,))
    output, hidden = mlp(key, up, down)
    return mlp(z, up, down)[0], (output - level.value(z)).square().sum() / 2 / DIM, (key, hidden)


@pytest.mark.parametrize("rule", RULE_OPTIONS)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_a_local_level_is_the_plain_loop_over_periods_values_and_gradients(rule, weight_decay):
    cms, x = make_cms(Level("mlp", 0, "", clock(rule=rule, weight_decay=weight_decay))), make_x(11)
    level = cms.levels["mlp"]
    fast, (state,) = cms(x, cms.init_state(BATCH))
    rows = []
    for row in x.split(1):
        up, down = level.up.weight[None], level.down.weight[None]
        deltas = [torch.zeros_like(up), torch.zeros_like(down)]
        rules, outputs = [FUNCTIONS[rule].init(delta) for delta in deltas], []
        for part in row.split(PERIOD, 1):
            weights = [up + deltas[0], down + deltas[1]]
            y, loss, both_inputs = local_loss(level, part, *weights)
            outputs.append(part + y)
            if part.shape[1] < PERIOD:
                break
            gradients = torch.autograd.grad(loss, weights, create_graph=True)
            for index, inputs in enumerate(both_inputs):
                x_of_rule = {"x": inputs} if RULES[rule].reads_inputs else {}
                deltas[index], rules[index] = FUNCTIONS[rule].update(
                    deltas[index], gradients[index], rules[index],
                    lr=0.1, weight_decay=weight_decay, **RULE_OPTIONS[rule], **x_of_rule,
                )  # fmt: skip
        rows.append(torch.cat(outputs, 1))
    slow = torch.cat(rows)
    assert torch.allclose(fast, slow, atol=1e-12)
    assert (state.writes, state.position) == (2, 11)
    parameters = list(cms.parameters())
    left, right = (torch.autograd.grad(y.sin().sum(), parameters) for y in (fast, slow))
    for ours, plain in zip(left, right, strict=True):
        assert torch.allclose(ours, plain, atol=1e-10)
        assert plain.abs().max() > 1e-6


def test_a_local_level_learns_to_map_its_keys_to_their_values():
    cms = make_cms(Level("mlp", 0, "", clock(lr=0.1)))
    level, x = cms.levels["mlp"], make_x(PERIOD).repeat(1, 60, 1)
    _, (state,) = cms(x, cms.init_state(BATCH))
    weights, delta = (level.up.weight, level.down.weight), state.delta()
    before, after = (
        local_loss(level, x[:, :PERIOD], weights[0] + fraction * delta.up, weights[1] + fraction * delta.down)[1]
        for fraction in (0, 1)
    )
    assert after < 0.1 * before


@pytest.mark.parametrize("rule", ["gd", "dgd", "adamw"])
@pytest.mark.parametrize("cuts", [[1] * 19, [4, 15], [3, 5, 11], [18, 1]])
def test_a_period_gives_the_same_result_however_it_is_split_into_calls(rule, cuts):
    cms, x = make_cms(Level("mlp", 0, "", clock(rule=rule))), make_x(19)
    whole, end = cms(x, cms.init_state(BATCH))
    state, outputs = cms.init_state(BATCH), []
    for part in x.split(cuts, 1):
        y, state = cms(part, state)
        outputs.append(y)
    assert torch.allclose(torch.cat(outputs, 1), whole, atol=1e-12)
    for left, right in zip(tree.leaves(state), tree.leaves(end), strict=True):
        assert torch.allclose(left, right, atol=1e-10)
    assert state[0].writes == end[0].writes == 19 // PERIOD


def test_without_writing_positions_advance_and_changes_stay():
    cms, x = make_cms(Level("mlp", 0, "", clock())), make_x(19)
    _, (before,) = cms(x[:, :6], cms.init_state(BATCH))
    _, (after,) = cms(x[:, 6:], (before,), write=False)
    assert (after.position, after.writes) == (19, 1)
    for left, right in zip(tree.leaves(before), tree.leaves(after), strict=True):
        assert torch.equal(left, right)


def test_a_level_whose_rate_is_zero_has_no_state():
    cms = make_cms(Level("mlp", 0, "", clock(lr=0.0)))
    assert cms.init_state(BATCH) == (None,)
    plain, x = make_cms("mlp"), make_x()
    assert torch.equal(cms(x, (None,))[0], plain(x, (None,))[0])


@pytest.mark.parametrize("period", [1, 4, 7, 64])
def test_a_period_makes_exactly_one_update(period):
    cms = make_cms(Level("mlp", 0, "", clock(period)))
    _, (state,) = cms(make_x(20), cms.init_state(BATCH))
    assert state.writes == 20 // period
    assert (state.surprise > 0).all() == (state.writes > 0)
    assert (norm(state.delta()) > 0).all() == (state.writes > 0)


def nested_states(num_tokens: int, gradient: MLPWeights) -> list[LevelState]:
    """The state of the fast level of a nested pair, after each token of a constant gradient."""
    fast, slow = (clock(period, lr=lr, signal="teach", is_through=False) for period, lr in ((2, 0.1), (6, 0.01)))
    cms = make_cms(Level("fast", 0, "", fast), Level("slow", 0, "", slow), variant="nested")
    state, states = cms.init_state(BATCH)[0], []
    for _ in range(num_tokens):
        state = write_gradient(advance(state, 1), gradient)
        states.append(state)
    return states


def test_a_nested_level_restarts_from_the_weights_of_the_slower_one():
    gradient = random_weights(make_cms("mlp").levels["mlp"])
    states = nested_states(14, gradient)
    # own writes: 2 tokens of gradient at 0.1; at token 6 the start moves by 6 tokens at 0.01, and own writes vanish
    expected = {1: 0.0, 2: 0.2, 3: 0.2, 4: 0.4, 6: 0.06, 8: 0.26, 11: 0.46, 12: 0.12, 14: 0.32}
    for tokens, total in expected.items():
        assert torch.allclose(states[tokens - 1].delta().up, -total * gradient.up), tokens
        assert torch.allclose(states[tokens - 1].delta().down, -total * gradient.down), tokens
    assert states[-1].writes == 7


def test_in_the_sequential_variant_a_level_has_only_its_own_clock():
    levels = Level("fast", 0, "", clock(2)), Level("slow", 0, "", clock(6)), Level("base", 0, "")
    chain, nested = (make_cms(*levels, variant=variant) for variant in ("sequential", "nested"))
    assert [len(state.clocks) for state in chain.init_state(1)[:2]] == [1, 1]
    assert [len(state.clocks) for state in nested.init_state(1)[:2]] == [2, 1]
    x = make_x(2)
    assert torch.equal(chain(x, chain.init_state(BATCH))[0], nested(x, nested.init_state(BATCH))[0])
