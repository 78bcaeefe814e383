"""The LSTM equals its recurrence, starts with open forget gates, and can read without writing."""

import torch

from nested_learning.nn.init import initialise
from nested_learning.nn.lstm import LSTM

DIM = 6


def make_lstm(seed: int = 0) -> LSTM:
    lstm = LSTM(DIM)
    initialise(lstm, num_layers=1, seed=seed)
    return lstm.double()


def make_x(t: int) -> torch.Tensor:
    return torch.randn(2, t, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def naive(lstm: LSTM, x: torch.Tensor) -> torch.Tensor:
    """Go through the recurrence token by token."""
    inner, outputs = lstm.lstm, []
    hidden = cell = x.new_zeros(len(x), DIM)
    for token in x.unbind(1):
        gates = token @ inner.weight_ih_l0.mT + inner.bias_ih_l0 + hidden @ inner.weight_hh_l0.mT + inner.bias_hh_l0
        enter, forget, new, out = gates.chunk(4, dim=-1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = out.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return lstm.output(torch.stack(outputs, dim=1))


def test_the_lstm_equals_its_recurrence():
    lstm, x = make_lstm(), make_x(7)
    y, _ = lstm(x, lstm.init_state(2))
    torch.testing.assert_close(y, naive(lstm, x))


def test_without_writing_every_token_is_read_from_the_same_state():
    lstm, x = make_lstm(), make_x(9)
    _, state = lstm(x[:, :5], lstm.init_state(2))
    read, unchanged = lstm(x[:, 5:], state, write=False)
    assert unchanged is state or all(map(torch.equal, unchanged.memory, state.memory))
    for position in range(4):
        next_alone, _ = lstm(x[:, 5 + position : 6 + position], state)
        torch.testing.assert_close(read[:, position : position + 1], next_alone)


def test_the_seed_fixes_the_weights_and_forget_gates_start_open():
    first, same, other = make_lstm(7), make_lstm(7), make_lstm(8)
    assert all(map(torch.equal, first.parameters(), same.parameters()))
    assert not torch.equal(first.lstm.weight_ih_l0, other.lstm.weight_ih_l0)
    assert not torch.equal(first.lstm.weight_hh_l0, other.lstm.weight_hh_l0)
    bias = first.lstm.bias_ih_l0 + first.lstm.bias_hh_l0
    assert bias.tolist() == [0.0] * DIM + [1.0] * DIM + [0.0] * 2 * DIM


def test_under_autocast_the_cells_keep_the_precision_of_the_parameters():
    lstm = make_lstm().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = lstm(make_x(3).bfloat16(), lstm.init_state(2))
    assert y.dtype == torch.bfloat16 and state.memory.cell.dtype == torch.float32
