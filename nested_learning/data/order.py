"""The order of rows within an epoch: a keyed permutation, so that the rows of any step are known at once."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nested_learning.seeds import derive_seed


def row_index(seed: int, epoch: int, num_rows: int, i: int) -> int:
    """Return which of `num_rows` rows is read as number `i`, 0 <= i < num_rows, of `epoch`. Source: ours.

    Over all `i` every row comes up exactly once; each epoch and each seed has its own order.
    """
    return int(_permutation(seed, epoch, num_rows)[i])


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_rows: int) -> NDArray[np.int64]:
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(num_rows)
