"""What is said of a memory is what a loop finds that asks it token by token."""

import math

import pytest
import torch
from ops import test_memory as plain
from ops import test_self_modifying as own
from torch.nn import functional as F

from nested_learning.ops.gates import Gates
from nested_learning.ops.memory import Memory, add, answer, naive_associative
from nested_learning.ops.self_modifying import QKV, READ, found_by_chunk, generate, naive_self_modifying
from nested_learning.ops.telemetry import effective_rank, mean_rank, norm, watch, watch_self_modifying


@pytest.mark.parametrize("choice", [*plain.MATRICES, *plain.DEEP], ids=lambda choice: "-".join(map(str, choice)))
@pytest.mark.parametrize("momentum", [False, True], ids=["plain", "momentum"])
def test_surprise_is_the_error_that_each_token_meets_before_it_is_written(choice, momentum):
    design, depth = plain.make_design(*choice), choice[4]
    for t, place in [(1, 0), (plain.CHUNK + 3, 3)]:
        inputs = plain.Inputs(t, depth, momentum, on_base=bool(place), place=place, dtype=torch.float64)
        logits = [*inputs.logits, None][:3]
        gates = Gates(
            0.05 * logits[0].sigmoid(), F.logsigmoid(logits[1] + 2), F.logsigmoid(logits[2]) if momentum else None
        )
        start = memory = Memory(inputs.reference, inputs.weight, inputs.momentum, place)
        expected = []
        for i in range(t):
            one = (inputs.q[:, :, i, None], inputs.k[:, :, i, None], inputs.v[:, :, i, None])
            error = answer(one[1], add(inputs.base, memory.weight), design) - one[2]
            expected.append(error.norm(dim=-1))
            here = Gates(*(None if gate is None else gate[:, :, i, None] for gate in gates))
            _, memory = naive_associative(*one, here, memory, inputs.base, design)
        watched = watch(inputs.k, inputs.v, gates, start, inputs.base, design)
        assert torch.allclose(watched.surprise, torch.cat(expected, dim=2), atol=1e-11, rtol=1e-9)
        assert torch.allclose(watched.retention, (logits[1] + 2).sigmoid())


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("adaptive", [(), own.ALL])
def test_every_self_modifying_memory_is_watched_towards_its_own_target(adaptive, depth):
    design = own.make_design(gradient="chunk", residual=depth > 1, chunks=(5, own.CHUNK))
    views, base, state = own.make_inputs(21, design, adaptive, depth)
    watched = watch_self_modifying(views, base, state, design)
    assert set(watched) == {*adaptive, READ}
    for i in range(21):
        here, found = QKV(*(x[:, :, i, None] for x in views)), found_by_chunk(base, state)
        made = generate(here, found, design)
        for name, memory in state.items():
            target = answer(made.value, found[name], design.of(name))
            error = answer(made.key, add(base[name], memory.weight), design.of(name)) - target
            assert torch.allclose(watched[name].surprise[:, :, i], error.norm(dim=-1)[..., 0])
            gates = made.read if name == READ else made.generating
            assert torch.allclose(watched[name].retention[:, :, i], gates.log_retention.exp()[..., 0])
        _, state = naive_self_modifying(here, base, state, design)


def test_the_effective_rank_counts_directions_that_are_used_alike():
    assert effective_rank(torch.eye(5)).item() == pytest.approx(5)
    assert effective_rank(torch.outer(torch.ones(4), torch.arange(3.0))).item() == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.diag(torch.tensor([2.0, 2.0, 0.0]))).item() == pytest.approx(2)
    shares = [0.7, 0.2, 0.1]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert effective_rank(torch.diag(torch.tensor(shares) * 9)).item() == pytest.approx(expected)


def test_nothing_written_has_rank_zero_and_what_is_not_finite_has_none():
    broken = torch.eye(3)
    broken[1, 1] = torch.nan
    ranks = effective_rank(torch.stack([torch.zeros(3, 3), broken, torch.eye(3)]))
    assert ranks[0] == 0 and ranks[1].isnan() and ranks[2] == pytest.approx(3)


def test_norms_are_of_all_layers_together_and_ranks_their_mean():
    weights = (torch.eye(3).expand(2, 4, 3, 3), 2 * torch.ones(2, 4, 3, 2))
    assert norm(weights).tolist() == pytest.approx([math.sqrt(4 * 3 + 4 * 6 * 4)] * 2)
    assert mean_rank(weights).tolist() == pytest.approx([(3 + 1) / 2] * 2, rel=1e-4)
