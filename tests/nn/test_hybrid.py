"""Titans with attention: what the window does not reach, persistent tokens, and who gates whom."""

import pytest
import torch
from laws.models import DIM, make_config, make_memory, new_memory
from torch.nn import functional as F

from nested_learning import tree
from nested_learning.nn.hybrid import gated
from nested_learning.nn.norm import RMSNorm

WINDOWED = ("titans_mag", "titans_mal")
HYBRIDS = ("titans_mac", *WINDOWED)


def make_input(t, rows=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, t, DIM, dtype=torch.float64, generator=generator)


def blind(module):
    """Let attention alone speak: the memory answers the same to everything."""
    module.memory.read_norm.scale.data.zero_()
    return module


@pytest.mark.parametrize("name", HYBRIDS)
def test_persistent_tokens_are_seen_from_beyond_the_window_and_the_segment(name):
    module, x = make_memory(name), make_input(40)
    y, _ = module(x, module.init_state(2))
    state = module.init_state(2)
    state = state._replace(persistent=state.persistent._replace(value=state.persistent.value + 1))
    z, _ = module(x, state)
    assert (y - z).abs().amax(dim=(0, 2)).min() > 1e-4


@pytest.mark.parametrize("name", HYBRIDS)
def test_the_outer_gradient_of_a_late_token_reaches_persistent_tokens_through_attention(name):
    module = make_memory(name)
    state = module.init_state(1)
    (key, value), module_input = state.persistent, make_input(40, rows=1)
    y, _ = module(module_input, state)
    gradients = torch.autograd.grad(y[:, -1].sin().sum(), [module.persistent.embedding.weight, key, value])
    assert all(gradient.abs().max() > 1e-9 for gradient in gradients)


@pytest.mark.parametrize("name", WINDOWED)
def test_the_memory_has_read_the_persistent_tokens_before_the_first_token(name):
    module = make_memory(name)
    unread, state = module.memory.init_state(1), module.init_state(1)
    _, expected = module.memory(module.persistent(), unread)
    assert not torch.allclose(state.long_term.memory.weight[0], unread.memory.weight[0], atol=1e-3)
    assert torch.equal(state.long_term.memory.weight[0], expected.memory.weight[0])
    (gradient,) = torch.autograd.grad(state.long_term.memory.weight[0].sin().sum(), module.persistent.embedding.weight)
    assert gradient.abs().max() > 1e-9


@pytest.mark.parametrize("name", WINDOWED)
def test_the_chunks_of_the_text_begin_with_it_whatever_was_read_before(name):
    memory = new_memory(name).init_state(1).long_term.memory
    assert memory.position == 0
    assert all(torch.equal(*pair) for pair in zip(memory.reference, memory.weight, strict=True))


def test_attention_of_a_layer_sees_what_the_memory_answers_to_persistent_tokens_and_of_a_gate_the_tokens():
    layer, gate = make_memory("titans_mal"), make_memory("titans_mag")
    for module in (layer, gate):
        tokens = module.persistent()
        answers, _ = module.memory(tokens, module.memory.init_state(1))
        expected = module.attention.keys_values(answers if module is layer else tokens)
        assert torch.allclose(module.init_state(1).persistent.value, expected.value)


@pytest.mark.parametrize("name", WINDOWED)
def test_what_lies_beyond_the_window_is_known_by_the_memory_alone(name):
    x = make_input(40)
    other = x.clone()
    other[:, 3] += 1
    module = make_memory(name)
    y, z = (module(each, module.init_state(2))[0][:, -1] for each in (x, other))
    assert (y - z).abs().max() > 1e-9
    if name == "titans_mag":
        window, _ = module.attention.attend(x, module.attention.init_state(2), None)
        same, _ = module.attention.attend(other, module.attention.init_state(2), None)
        assert torch.equal(window[:, -1], same[:, -1])


def test_through_the_gate_comes_what_the_memory_says_and_nothing_else():
    module, x = blind(make_memory("titans_mag")), make_input(9)
    y, _ = module(x, module.init_state(2))
    assert y.abs().max() == 0


def test_the_output_of_a_gate_is_the_memory_times_the_non_linear_attention_each_normalised():
    module, x = make_memory("titans_mag"), make_input(9)
    state = module.init_state(2)
    y, _ = module.attention.attend(x, state.short_term, state.persistent)
    answers, _ = module.memory(x, state.long_term)
    assert isinstance(module.attention_norm, RMSNorm) and isinstance(module.memory.read_norm, RMSNorm)
    product = F.silu(module.attention_norm(y)) * answers
    assert torch.equal(gated(module.attention_norm(y), answers), product)
    assert torch.allclose(module(x, state)[0], F.linear(product, module.output.weight), atol=1e-14)


def test_the_output_of_a_layer_is_attention_over_what_the_memory_answers():
    module, x = make_memory("titans_mal"), make_input(9)
    state = module.init_state(2)
    answers, _ = module.memory(x, state.long_term)
    y, _ = module.attention.attend(answers, state.short_term, state.persistent)
    assert torch.allclose(module(x, state)[0], F.linear(y, module.output.weight), atol=1e-14)


@pytest.mark.parametrize("name", HYBRIDS)
def test_without_persistent_tokens_there_is_nothing_of_them(name):
    module = make_config(f"model={name}", "model.num_persistent=0").build(19, seed=0).blocks[0].mixer
    assert module.init_state(1).persistent is None
    assert not any("persistent" in path for path, _ in module.named_parameters())


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_state_costs_the_same_after_many_tokens(name):
    module = make_memory(name)
    state = module.init_state(1)
    before = tree.nbytes(state)
    for piece in make_input(64, rows=1).split(1, dim=1):
        _, state = module(piece, state)
    assert tree.nbytes(state) == before


@pytest.mark.parametrize("name", HYBRIDS)
def test_in_half_precision_memories_stay_in_single_precision_and_say_about_the_same(name):
    module, x = new_memory(name), make_input(20).float()
    exact, _ = module(x, module.init_state(2))
    with torch.autocast("cpu", torch.bfloat16):
        state = module.init_state(2)
        for piece in x.split([3, 16, 1], dim=1):
            y, state = module(piece, state)
    assert state.long_term.memory.weight[0].dtype == torch.float32
    assert F.cosine_similarity(y[:, -1].float().flatten(), exact[:, -1].flatten(), dim=0) > 0.98
