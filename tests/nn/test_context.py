"""Memory as context (MAC): a segment recalls from the memory at its start, and attention's output is written."""

import torch
from laws.models import CHUNK, DIM, make_memory
from torch.nn import functional as F

from nested_learning.nn.attention import rotate


def make_input(t, rows=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, t, DIM, dtype=torch.float64, generator=generator)


def by_the_book(module, x):
    """Equations 21-25, token by token: a new sequence `[P | h | S]` for every token, one softmax over it."""
    attention, memory = module.attention, module.memory
    long_term, outputs, recalled, segment = memory.init_state(len(x)), [], [], []
    window, start = long_term.windows.query, long_term.memory.weight
    tokens = module.persistent().expand(len(x), -1, -1)
    for t in range(x.shape[1]):
        if t % CHUNK == 0:
            recalled, segment, start = [], [], long_term.memory.weight
        token = x[:, t : t + 1]
        query, window = memory.queries(token, window)
        recalled.append(memory.recall(query, start))
        segment.append(token)
        # what is not read yet has its position all the same
        gap = torch.zeros(len(x), CHUNK - len(recalled), DIM, dtype=x.dtype)
        sequence = torch.cat([tokens, *recalled, gap, *segment], dim=1)
        key, value = attention.keys_values(sequence)
        query = rotate(attention.queries(token), sequence.shape[1] - 1)
        match = (query @ rotate(key, 0).mT) * query.shape[-1] ** -0.5
        first_gap = tokens.shape[1] + len(recalled)
        match[..., first_gap : first_gap + gap.shape[1]] = -torch.inf
        y = (match.softmax(-1) @ value).transpose(1, 2).flatten(2)
        y = module.attention_norm(y)
        read, long_term = memory(y, long_term)
        outputs.append(F.linear(F.silu(y) * read, module.output.weight))
    return torch.cat(outputs, dim=1), long_term


def test_whole_segments_equal_the_equations_token_by_token():
    module, x = make_memory("titans_mac"), make_input(2 * CHUNK + 5)
    y, state = module(x, module.init_state(2))
    expected, long_term = by_the_book(module, x)
    assert torch.allclose(y, expected, atol=1e-12)
    assert torch.allclose(state.long_term.memory.weight[0], long_term.memory.weight[0], atol=1e-12)


def test_the_output_of_attention_is_written_into_the_memory():
    module, x = make_memory("titans_mac"), make_input(5)
    _, before = module(x, module.init_state(2))
    module.attention.value.weight.data[0] += 1
    _, after = module(x, module.init_state(2))
    assert not torch.allclose(before.long_term.memory.weight[0], after.long_term.memory.weight[0], atol=1e-3)
    module.attention.value.weight.data.zero_()
    _, first = module(x, module.init_state(2))
    _, second = module(x + 1, module.init_state(2))
    assert first.persistent.value.abs().max() == 0
    assert torch.equal(first.long_term.memory.weight[0], second.long_term.memory.weight[0])


def test_a_segment_recalls_from_the_memory_at_its_start():
    module, x = make_memory("titans_mac"), make_input(2 * CHUNK)
    _, state = module(x[:, :CHUNK], module.init_state(2))
    assert torch.equal(state.start_weights[0], state.long_term.memory.weight[0])
    _, inside = module(x[:, CHUNK : CHUNK + 3], state)
    assert torch.equal(inside.start_weights[0], state.start_weights[0])
    assert not torch.equal(inside.long_term.memory.weight[0], state.start_weights[0])


def test_attention_reads_what_the_segment_recalls():
    module, x = make_memory("titans_mac"), make_input(CHUNK + 2)
    # inside a segment: at the first token the weights would be replaced by those of the memory
    _, state = module(x[:, : CHUNK + 1], module.init_state(2))
    known, _ = module(x[:, CHUNK + 1 :], state)
    forgotten, _ = module(
        x[:, CHUNK + 1 :], state._replace(start_weights=tuple(-weight for weight in state.start_weights))
    )
    assert not torch.allclose(known[:, 0], forgotten[:, 0], atol=1e-4)


def test_attention_starts_each_segment_with_an_empty_cache():
    module, x = make_memory("titans_mac"), make_input(CHUNK + 3)
    _, state = module(x[:, :CHUNK], module.init_state(2))
    assert state.short_term.position == 0
    assert state.short_term.key.abs().max() == 0


def test_without_writing_the_next_segment_recalls_from_the_unchanged_memory():
    module, x = make_memory("titans_mac"), make_input(3 * CHUNK)
    _, state = module(x[:, : CHUNK + 3], module.init_state(2))
    _, later = module(x[:, CHUNK + 3 :], state, write=False)
    assert torch.equal(later.start_weights[0], state.long_term.memory.weight[0])
    assert later.short_term.position == 0
