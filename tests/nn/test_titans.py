"""What makes Titans' memory a memory: it recalls what it read, each row its own, and frozen it recalls nothing."""

import torch
from torch.nn import functional as F

from nested_learning.nn.init import initialise
from nested_learning.nn.self_modifying import SelfModifyingMemory
from nested_learning.nn.titans import TitansMemory


def test_gates_are_functions_of_the_token():
    memory = TitansMemory(8, 2, conv_width=1, chunk=4).double()
    initialise(memory, num_layers=1, seed=0)
    memory.gates.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with_gates, _ = memory(x, memory.init_state(1))
    memory.gates.weight.data.zero_()
    without, _ = memory(x, memory.init_state(1))
    assert not torch.allclose(with_gates, without)


def test_the_chunk_of_titans_has_no_effect_on_the_result():
    x = torch.randn(2, 21, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for chunk in (1, 4, 64):
        memory = TitansMemory(8, 2, conv_width=4, chunk=chunk)
        initialise(memory, num_layers=1, seed=0)
        memory.double()
        results.append(memory(x, memory.init_state(2))[0])
    assert torch.allclose(results[0], results[1], atol=1e-12)
    assert torch.allclose(results[0], results[2], atol=1e-12)


def test_a_frozen_memory_answers_from_its_meta_learned_weights_alone():
    for make in (TitansMemory, SelfModifyingMemory):
        memory = make(8, 2, conv_width=1, chunk=4)
        initialise(memory, num_layers=1, seed=0)
        x = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(1))
        swapped = x[:, [1, 0, 2, 3, 4, 5]]
        frozen = [memory(z, memory.init_state(1), write=False)[0][:, -1] for z in (x, swapped)]
        writing = [memory(z, memory.init_state(1))[0][:, -1] for z in (x, swapped)]
        assert torch.equal(*frozen)
        assert not torch.allclose(*writing)


def test_the_memory_stays_in_single_precision_under_autocast():
    for make in (TitansMemory, SelfModifyingMemory):
        memory = make(8, 2, conv_width=4, chunk=4)
        initialise(memory, num_layers=1, seed=0)
        x = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(1))
        exact, _ = memory(x, memory.init_state(1))
        with torch.autocast("cpu", torch.bfloat16):
            y, state = memory(x, memory.init_state(1))
        assert state.memory[0].dtype == torch.float32
        assert F.cosine_similarity(y.float().flatten(), exact.flatten(), dim=0) > 0.99
