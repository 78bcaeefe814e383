"""Causal attention, over all past tokens or a window, through a KV cache that is a value."""

import pytest
import torch
from torch.nn import functional as F

from nested_learning.nn.attention import Attention, AttentionHeads, KVCache, causal_mask, rotate
from nested_learning.nn.init import initialise
from nested_learning.ops.window import Prefix, window_attention

DIM, HEADS = 12, 2


def make_attention(window=None) -> Attention:
    attention = Attention(DIM, HEADS, window)
    initialise(attention, num_layers=1, seed=0)
    return attention.double()


def make_x(t: int) -> torch.Tensor:
    return torch.randn(2, t, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_rotation_makes_scores_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near = rotate(q, 7) @ rotate(k, 3).mT
    far = rotate(q, 1007) @ rotate(k, 1003).mT
    other = rotate(q, 8) @ rotate(k, 3).mT
    assert torch.allclose(near, far, atol=1e-9)
    assert (near - other).abs() > 1e-2


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def in_one_piece(q, k, v, window, num_missing, prefix):
    """Windowed attention as its definition says it: every product, the unseen ones masked, one softmax."""
    t, s = q.shape[2], k.shape[2]
    distance = torch.arange(s - t, s)[:, None] - torch.arange(s)
    seen = (distance >= 0) & (distance < window) & (torch.arange(s) >= num_missing)
    match = torch.cat([prefix.match, (q @ k.mT).masked_fill(~seen, -torch.inf)], dim=-1)
    return (match * q.shape[-1] ** -0.5).softmax(-1) @ torch.cat([prefix.value, v], dim=2)


def test_no_query_sees_the_future():
    assert causal_mask(2, 4, torch.device("cpu")).tolist() == [[True, True, True, False], [True, True, True, True]]


@pytest.mark.parametrize("t,window,num_missing", [(1, 4, 0), (1, 2, 1), (3, 8, 7), (8, 8, 7), (23, 8, 5), (24, 5, 0)])
@pytest.mark.parametrize("num_prefix", [0, 3])
def test_a_window_in_blocks_is_the_masked_softmax_with_all_gradients(t, window, num_missing, num_prefix):
    q, k, v = draw(2, 2, t, 6), draw(2, 2, window - 1 + t, 6, seed=1), draw(2, 2, window - 1 + t, 6, seed=2)
    prefix = Prefix(draw(2, 2, t, num_prefix, seed=3), draw(2, 2, num_prefix, 6, seed=4))
    inputs = [q, k, v, *(prefix if num_prefix else ())]
    expected = in_one_piece(q, k, v, window, num_missing, prefix)
    y = window_attention(q, k, v, window, num_missing, prefix if num_prefix else None)
    assert torch.allclose(y, expected, atol=1e-12)
    ours, theirs = (torch.autograd.grad(z.sin().sum(), inputs) for z in (y, expected))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


def test_a_window_allocates_nothing_of_the_size_of_the_sequence_squared():
    heads = AttentionHeads(DIM, HEADS, window=4)
    sizes = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    for t in (512, 1024):
        sizes.append(0)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            heads.attend(make_x(t).float(), heads.init_state(2), None)
    twice = sizes.index(0, 1)
    assert sum(sizes[twice:]) < 2.1 * sum(sizes[:twice])


def test_persistent_tokens_have_the_same_scores_at_every_position():
    heads, tokens = AttentionHeads(DIM, HEADS, window=4).double(), make_x(3)
    x = make_x(1).expand(-1, 40, -1)
    seen, _ = heads.attend(x, heads.init_state(2), heads.keys_values(tokens))
    unseen, _ = heads.attend(x, heads.init_state(2), None)
    other, _ = heads.attend(x, heads.init_state(2), heads.keys_values(tokens + 1))
    assert torch.allclose(seen[:, 3:4], seen[:, 3:], atol=1e-12)
    assert not torch.allclose(seen[:, -1], other[:, -1], atol=1e-3)
    assert not torch.allclose(seen[:, -1], unseen[:, -1], atol=1e-3)


def test_tokens_outside_the_window_have_no_effect():
    attention, x = make_attention(window=4), make_x(12)
    y, _ = attention(x, attention.init_state(2))
    x[:, 0] += 1
    z, _ = attention(x, attention.init_state(2))
    assert torch.equal(y[:, 4:], z[:, 4:])
    assert not torch.equal(y[:, 3], z[:, 3])


def test_the_cache_of_a_window_has_one_length_and_that_of_full_attention_grows():
    for window, t, expected in ((4, 1, 3), (4, 12, 3), (None, 1, 1), (None, 12, 12)):
        attention = make_attention(window)
        _, state = attention(make_x(t), attention.init_state(2))
        assert state.key.shape[2] == expected
        assert state.position == t


def test_cache_entries_before_the_first_token_are_masked():
    attention, x = make_attention(window=6), make_x(3)
    nothing = attention.init_state(2)
    y, _ = attention(x, nothing)
    z, _ = attention(x, KVCache(nothing.key + 9, nothing.value + 9, 0))
    assert torch.equal(y, z)


def test_one_head_without_rotation_is_softmax_attention():
    attention, x = make_attention(), make_x(1)
    y, _ = attention(x, attention.init_state(2))
    assert torch.allclose(y, F.linear(attention.value(x), attention.output.weight))
