import numpy as np
import torch

from nested_learning.data.batch import collate, to
from nested_learning.data.source import IGNORE, Row


def make_row(first: int) -> Row:
    tokens = np.arange(first, first + 4)
    return Row(tokens, np.append(tokens[1:], IGNORE), np.array([0, 0, 1, 1]))


def test_rows_are_stacked_in_order_as_int64() -> None:
    batch = collate([make_row(0), make_row(10)])
    assert batch.tokens.tolist() == [[0, 1, 2, 3], [10, 11, 12, 13]]
    assert batch.targets.tolist() == [[1, 2, 3, IGNORE], [11, 12, 13, IGNORE]]
    assert batch.documents.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert {tensor.dtype for tensor in batch} == {torch.int64}


def test_all_parts_of_a_batch_move_to_another_device() -> None:
    moved = to(collate([make_row(0)]), "meta")
    assert {tensor.device.type for tensor in moved} == {"meta"}


def test_a_batch_does_not_share_memory_with_its_rows() -> None:
    row = make_row(0)
    batch = collate([row])
    batch.tokens.zero_()
    assert row.tokens.tolist() == [0, 1, 2, 3]
