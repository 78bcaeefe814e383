"""A memory layer changes its output with what it read; frozen, it does not."""

import torch
from laws.models import DIM, new_memory
from torch.nn import functional as F

from nested_learning.ops.memory import apply_memory

WRITING = ("titans_lmm", "titans_deep", "self_modifying", "self_modifying_deep")


def make_input(t, rows=1):
    return torch.randn(rows, t, DIM, generator=torch.Generator().manual_seed(1))


def test_gates_are_functions_of_the_token():
    memory, x = new_memory("titans_lmm"), make_input(6)
    memory.gates.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    with_gates, _ = memory(x, memory.init_state(1))
    memory.gates.weight.data.zero_()
    without, _ = memory(x, memory.init_state(1))
    assert not torch.allclose(with_gates, without)


def test_a_frozen_memory_returns_what_its_meta_learned_weights_give():
    for name in WRITING:
        memory, x = new_memory(name), make_input(20)
        swapped = x[:, [1, 0, *range(2, 20)]]
        frozen = [memory(z, memory.init_state(1), write=False)[0][:, -1] for z in (x, swapped)]
        writing = [memory(z, memory.init_state(1))[0][:, -1] for z in (x, swapped)]
        assert torch.equal(*frozen)
        assert not torch.allclose(*writing, atol=1e-6)


def test_the_memory_stays_in_single_precision_under_autocast():
    for name in WRITING:
        memory, x = new_memory(name), make_input(6)
        exact, _ = memory(x, memory.init_state(1))
        with torch.autocast("cpu", torch.bfloat16):
            y, state = memory(x, memory.init_state(1))
        written = state.memory if name.startswith("titans") else state.memory["read"]
        assert written.weight[0].dtype == torch.float32
        assert F.cosine_similarity(y.float().flatten(), exact.flatten(), dim=0) > 0.99


def test_a_memory_with_learned_weights_starts_as_the_identity():
    for name in ("titans_deep", "titans_lmm"):
        memory = new_memory(name)
        key = torch.randn(1, memory.num_heads, 3, memory.head_dim)
        assert torch.allclose(apply_memory(key, memory.initial.weights(), memory.design), key)


def test_a_memory_of_start_zero_has_zero_weights_and_no_initial_parameters():
    memory = new_memory("deltanet")
    assert memory.init_state(2).memory.weight[0].abs().max() == 0
    assert not any("initial" in name for name, _ in memory.named_parameters())
