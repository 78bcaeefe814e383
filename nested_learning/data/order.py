"""The order of rows in an epoch: a keyed permutation computed on the fly, so that the rows of any step are known."""

from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from nested_learning.seeds import derive_seed

# of each half of a place
ROUNDS = 3

Positions = NDArray[np.int64]


def row_indices(seed: int, epoch: int, num_rows: int, places: Positions) -> Positions:
    """Return which of `num_rows` rows are read at `places`, each in [0, num_rows), of `epoch`.

    Over all places every row comes up exactly once; each epoch and each seed has its own order.
    """
    return permute(derive_seed(seed, "order", epoch), num_rows, places)


def endless_order(seed: int, num_rows: int, places: Positions) -> tuple[Positions, Positions]:
    """Return the epochs and the rows at `places` of the endless order, whose epochs are of `num_rows` rows each."""
    epochs, inside = np.divmod(places, num_rows)
    indices = np.empty_like(inside)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        indices[here] = row_indices(seed, epoch, num_rows, inside[here])
    return epochs, indices


def permute(key: int, size: int, places: Positions) -> Positions:
    """Return where the permutation of [0, size) that `key` stands for sends each of `places`.

    A Feistel network over pairs (left < a, right < b), with a * b about `size`; what falls outside of [0, size) is sent
    on until it is inside. Nothing is stored, whatever the size. Source: cycle walking and generalized Feistel, Black
    and Rogaway, Ciphers with Arbitrary Finite Domains, 2002; the round function is the finalizer of splitmix64.
    """
    sent = _feistel(key, size, places)
    while (outside := sent >= size).any():
        sent[outside] = _feistel(key, size, sent[outside])
    return sent


def _feistel(key: int, size: int, places: Positions) -> Positions:
    a = isqrt(size - 1) + 1
    b = -(-size // a)
    left, right = np.divmod(places.astype(np.uint64), np.uint64(b))
    for of_left, of_right in _round_keys(key):
        left = (left + _scramble(right + of_left)) % np.uint64(a)
        right = (right + _scramble(left + of_right)) % np.uint64(b)
    return (left * np.uint64(b) + right).astype(np.int64)


@lru_cache(maxsize=64)
def _round_keys(key: int) -> list[tuple[np.uint64, np.uint64]]:
    keys = [np.uint64(derive_seed(key, "round", i)) for i in range(2 * ROUNDS)]
    return list(zip(keys[::2], keys[1::2], strict=True))


def _scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a number below 2^62 that depends on every bit of `x`, so that a place may be added to it."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(2)
