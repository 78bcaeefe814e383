import numpy as np
import pytest

from nested_learning.data.order import permute, row_indices


def order(seed: int, epoch: int, num_rows: int) -> list[int]:
    return row_indices(seed, epoch, num_rows, np.arange(num_rows)).tolist()


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 13, 64, 1000, 100_003])
def test_every_row_occurs_exactly_once_per_epoch(num_rows: int) -> None:
    assert sorted(order(3, 1, num_rows)) == list(range(num_rows))


def test_the_row_at_a_position_does_not_depend_on_the_other_positions_queried() -> None:
    positions = np.array([999, 0, 5, 5, 17])
    whole = order(3, 1, 1000)
    assert row_indices(3, 1, 1000, positions).tolist() == [whole[position] for position in positions]
    assert row_indices(3, 1, 1000, positions[:0]).tolist() == []


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    first = order(0, 0, 100)
    others = [order(seed, epoch, 100) for seed in range(10) for epoch in range(10) if (seed, epoch) != (0, 0)]
    assert first not in others
    # by now the cache of keys has dropped those of the first order
    assert order(0, 0, 100) == first


def test_the_order_is_the_same_on_every_machine() -> None:
    assert order(0, 0, 10) == [8, 2, 7, 5, 1, 3, 9, 6, 0, 4]


@pytest.mark.parametrize("size", [2, 10, 97])
def test_every_row_is_equally_likely_at_every_position(size: int) -> None:
    keys = 2000
    seen = np.zeros((size, size))
    for key in range(keys):
        seen[np.arange(size), permute(key, size, np.arange(size))] += 1
    expected = keys / size
    # a sum of squares of about (size - 1)^2 normal deviations
    chi = ((seen - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert abs(chi - freedom) < 5 * (2 * freedom) ** 0.5


def test_neighbouring_rows_of_the_text_are_not_neighbours_in_the_order() -> None:
    found = np.array(order(0, 0, 10_000))
    assert np.count_nonzero(np.abs(np.diff(found)) == 1) < 12
    assert abs(np.corrcoef(np.arange(10_000), found)[0, 1]) < 0.04
