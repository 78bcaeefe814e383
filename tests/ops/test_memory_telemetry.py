"""Statistics of a memory equal those of a loop that computes them token by token."""

import math

import pytest
import torch
from ops import test_memory as plain
from ops import test_self_modifying as own
from torch.nn import functional as F

from nested_learning.ops.gates import Gates
from nested_learning.ops.memory import Memory, Tokens, apply_memory, full_weights, naive_associative
from nested_learning.ops.self_modifying import QKV, READ, chunk_start_weights, generate, naive_self_modifying
from nested_learning.ops.telemetry import effective_rank, mean_rank, norm, self_modifying_stats, token_stats


@pytest.mark.parametrize("choice", [*plain.MATRICES, *plain.DEEP], ids=lambda choice: "-".join(map(str, choice)))
@pytest.mark.parametrize("momentum", [False, True], ids=["plain", "momentum"])
def test_surprise_is_the_error_on_each_token_just_before_its_write(choice, momentum):
    design, depth = plain.make_design(*choice), choice[4]
    for t, position in [(1, 0), (plain.CHUNK + 3, 3)]:
        inputs = plain.Inputs(t, depth, momentum, on_base=bool(position), position=position, dtype=torch.float64)
        logits = [*inputs.logits, None][:3]
        gates = Gates(
            0.05 * logits[0].sigmoid(), F.logsigmoid(logits[1] + 2), F.logsigmoid(logits[2]) if momentum else None
        )
        start = memory = Memory(inputs.reference, inputs.weight, inputs.momentum, position)
        expected = []
        for i in range(t):
            q, k, v = (x[:, :, i, None] for x in (inputs.q, inputs.k, inputs.v))
            error = apply_memory(k, full_weights(inputs.base, memory.weight), design) - v
            expected.append(error.norm(dim=-1))
            here = Gates(*(None if gate is None else gate[:, :, i, None] for gate in gates))
            _, memory = naive_associative(Tokens(q, k, v, here), memory, inputs.base, design)
        stats = token_stats(Tokens(inputs.q, inputs.k, inputs.v, gates), start, inputs.base, design)
        assert torch.allclose(stats.surprise, torch.cat(expected, dim=2), atol=1e-11, rtol=1e-9)
        assert torch.allclose(stats.retention, (logits[1] + 2).sigmoid())


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("adaptive", [(), own.ALL])
def test_the_surprise_of_a_self_modifying_memory_is_about_its_own_target(adaptive, depth):
    design = own.make_design(gradient="chunk", residual=depth > 1, chunks=(5, own.CHUNK))
    qkv, base, state = own.make_inputs(21, design, adaptive, depth)
    stats = self_modifying_stats(qkv, base, state, design)
    assert set(stats) == {*adaptive, READ}
    for i in range(21):
        here, start = QKV(*(x[:, :, i, None] for x in qkv)), chunk_start_weights(base, state)
        generated = generate(here, start, design)
        for name, memory in state.items():
            target = apply_memory(generated.value, start[name], design.of(name))
            error = apply_memory(generated.key, full_weights(base[name], memory.weight), design.of(name)) - target
            assert torch.allclose(stats[name].surprise[:, :, i], error.norm(dim=-1)[..., 0])
            gates = generated.read if name == READ else generated.generating
            assert torch.allclose(stats[name].retention[:, :, i], gates.log_retention.exp()[..., 0])
        _, state = naive_self_modifying(here, base, state, design)


def test_the_effective_rank_counts_equally_used_directions():
    assert effective_rank(torch.eye(5)).item() == pytest.approx(5)
    assert effective_rank(torch.outer(torch.ones(4), torch.arange(3.0))).item() == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.diag(torch.tensor([2.0, 2.0, 0.0]))).item() == pytest.approx(2)
    fractions = [0.7, 0.2, 0.1]
    expected = math.exp(-sum(fraction * math.log(fraction) for fraction in fractions))
    assert effective_rank(torch.diag(torch.tensor(fractions) * 9)).item() == pytest.approx(expected)


def test_a_zero_matrix_has_rank_zero_and_one_that_is_not_finite_nan():
    broken = torch.eye(3)
    broken[1, 1] = torch.nan
    ranks = effective_rank(torch.stack([torch.zeros(3, 3), broken, torch.eye(3)]))
    assert ranks[0] == 0 and ranks[1].isnan() and ranks[2] == pytest.approx(3)


def test_the_norm_is_that_of_all_layers_together_and_the_rank_their_mean():
    weights = (torch.eye(3).expand(2, 4, 3, 3), 2 * torch.ones(2, 4, 3, 2))
    assert norm(weights).tolist() == pytest.approx([math.sqrt(4 * 3 + 4 * 6 * 4)] * 2)
    assert mean_rank(weights).tolist() == pytest.approx([(3 + 1) / 2] * 2, rel=1e-4)
