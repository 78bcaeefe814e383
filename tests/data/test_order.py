import pytest

from nested_learning.data.order import row_index


@pytest.mark.parametrize("num_rows", [1, 2, 7, 64, 1000])
def test_every_row_comes_up_exactly_once_an_epoch(num_rows: int) -> None:
    assert sorted(row_index(3, 1, num_rows, i) for i in range(num_rows)) == list(range(num_rows))


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [row_index(seed, epoch, 100, i) for i in range(100)]

    first = order(0, 0)
    others = [order(1, 0), order(0, 1), order(7, 9), order(2, 2), order(3, 3)]
    assert first not in others
    # the cache of orders is by now filled with others
    assert order(0, 0) == first


def test_the_order_is_the_same_on_every_machine() -> None:
    assert [row_index(0, 0, 10, i) for i in range(10)] == [4, 6, 5, 1, 0, 3, 9, 2, 8, 7]
