"""A part of a write is kept row by row: a row that keeps nothing of it is as it was before."""

import torch

from nested_learning.level import Context, Level
from nested_learning.nn.interpolate import interpolate_level
from nested_learning.nn.level_state import MLPWeights, advance, init_level, write_gradient

CLOCK = Context(4, "gd", 1.0, 0.0, (), "teach", False)
WEIGHTS = MLPWeights(torch.zeros(6, 2), torch.zeros(2, 3))
GRADIENT = MLPWeights(torch.ones(2, 6, 2), torch.ones(2, 2, 3))


def read(state, num_tokens):
    return write_gradient(advance(state, num_tokens), GRADIENT)


def test_a_row_that_does_not_write_keeps_the_sums_of_its_period_for_the_next():
    before = read(init_level(Level("fast", 4, ""), (CLOCK,), WEIGHTS, 2), 3)
    mixed = read(interpolate_level(before, read(before, 1), torch.tensor([0.0, 1.0])), 1)
    assert mixed.fast[0].gradient.up[:, 0, 0].tolist() == [2, 1]
    assert mixed.fast[0].delta.up[:, 0, 0].tolist() == [0, -2]


def test_where_no_row_writes_only_the_clock_advances():
    before = read(init_level(Level("fast", 4, ""), (CLOCK,), WEIGHTS, 2), 3)
    assert interpolate_level(before, read(before, 1), torch.zeros(2)) == before._replace(position=4)
