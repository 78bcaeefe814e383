"""Titans with attention: tokens outside the window, persistent tokens, and the two ways of combining."""

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
    """Make the output depend on attention only: the memory returns the same for every token."""
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
def test_the_first_token_of_the_text_begins_a_chunk(name):
    memory = new_memory(name).init_state(1).long_term.memory
    assert memory.position == 0
    assert all(torch.equal(*pair) for pair in zip(memory.reference, memory.weight, strict=True))


def test_attention_sees_persistent_tokens_in_mag_and_the_outputs_of_the_memory_for_them_in_mal():
    layer, gate = make_memory("titans_mal"), make_memory("titans_mag")
    for module in (layer, gate):
        tokens = module.persistent()
        outputs, _ = module.memory(tokens, module.memory.init_state(1))
        expected = module.attention.keys_values(outputs if module is layer else tokens)
        assert torch.allclose(module.init_state(1).persistent.value, expected.value)


@pytest.mark.parametrize("name", WINDOWED)
def test_only_the_memory_depends_on_tokens_outside_the_window(name):
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


def test_the_output_of_a_gate_is_zero_if_the_memory_returns_zero():
    module, x = blind(make_memory("titans_mag")), make_input(9)
    y, _ = module(x, module.init_state(2))
    assert y.abs().max() == 0


def test_the_output_of_a_gate_is_the_memory_times_the_non_linear_attention_each_normalised():
    module, x = make_memory("titans_mag"), make_input(9)
    state = module.init_state(2)
    y, _ = module.attention.attend(x, state.short_term, state.persistent)
    outputs, _ = module.memory(x, state.long_term)
    assert isinstance(module.attention_norm, RMSNorm) and isinstance(module.memory.read_norm, RMSNorm)
    product = F.silu(module.attention_norm(y)) * outputs
    assert torch.equal(gated(module.attention_norm(y), outputs), product)
    assert torch.allclose(module(x, state)[0], F.linear(product, module.output.weight), atol=1e-14)


def test_the_output_of_a_layer_is_attention_over_the_outputs_of_the_memory():
    module, x = make_memory("titans_mal"), make_input(9)
    state = module.init_state(2)
    outputs, _ = module.memory(x, state.long_term)
    y, _ = module.attention.attend(outputs, state.short_term, state.persistent)
    assert torch.allclose(module(x, state)[0], F.linear(y, module.output.weight), atol=1e-14)


@pytest.mark.parametrize("name", HYBRIDS)
def test_without_persistent_tokens_there_are_no_parameters_and_no_state_for_them(name):
    module = make_config(f"model={name}", "model.num_persistent=0").build(19, seed=0).blocks[0].mixer
    assert module.init_state(1).persistent is None
    assert not any("persistent" in path for path, _ in module.named_parameters())


@pytest.mark.parametrize("name", HYBRIDS)
def test_the_size_of_a_state_does_not_grow_with_the_text(name):
    module = make_memory(name)
    state = module.init_state(1)
    before = tree.nbytes(state)
    for part in make_input(64, rows=1).split(1, dim=1):
        _, state = module(part, state)
    assert tree.nbytes(state) == before


@pytest.mark.parametrize("name", HYBRIDS)
def test_under_autocast_memories_stay_in_single_precision_and_outputs_are_close(name):
    module, x = new_memory(name), make_input(20).float()
    exact, _ = module(x, module.init_state(2))
    with torch.autocast("cpu", torch.bfloat16):
        state = module.init_state(2)
        for part in x.split([3, 16, 1], dim=1):
            y, state = module(part, state)
    assert state.long_term.memory.weight[0].dtype == torch.float32
    assert F.cosine_similarity(y[:, -1].float().flatten(), exact[:, -1].flatten(), dim=0) > 0.98
