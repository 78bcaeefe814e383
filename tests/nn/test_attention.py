"""Attention sees the past, all of it or a window, through a cache that is a value."""

import torch
from torch.nn import functional as F

from nested_learning.nn.attention import Attention, rotate, visible
from nested_learning.nn.init import initialise

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
    assert torch.allclose(near, far, atol=1e-4)
    assert (near - other).abs() > 1e-2


def test_a_window_shows_each_query_itself_and_the_tokens_just_before():
    shown = visible(2, 5, 3, torch.device("cpu"))
    assert shown.tolist() == [[False, True, True, True, False], [False, False, True, True, True]]


def test_what_lies_outside_the_window_changes_nothing():
    attention, x = make_attention(window=4), make_x(12)
    y, _ = attention(x, attention.init_state(2))
    x[:, 0] += 1
    z, _ = attention(x, attention.init_state(2))
    assert torch.equal(y[:, 4:], z[:, 4:])
    assert not torch.equal(y[:, 3], z[:, 3])


def test_the_cache_of_a_window_stops_growing_and_that_of_full_attention_does_not():
    for window, expected in ((4, 3), (None, 12)):
        attention = make_attention(window)
        _, state = attention(make_x(12), attention.init_state(2))
        assert state.key.shape[2] == expected
        assert state.position == 12


def test_one_head_without_rotation_is_softmax_attention():
    attention, x = make_attention(), make_x(1)
    y, _ = attention(x, attention.init_state(2))
    assert torch.allclose(y, F.linear(attention.value(x), attention.output.weight))
