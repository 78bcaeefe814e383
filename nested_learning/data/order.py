"""The order of rows: a keyed permutation of each epoch, computed and never stored, so any step's rows are known."""

from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from nested_learning.seeds import derive_seed

# of the Feistel network; each round changes both halves of an index
ROUNDS = 3

Positions = NDArray[np.int64]


def row_indices(seed: int, epoch: int, num_rows: int, positions: Positions) -> Positions:
    """Return which rows are read at `positions`, each in [0, num_rows), of `epoch`.

    Every epoch and seed has its own order, in which each of the `num_rows` rows occurs exactly once.
    """
    return permute(derive_seed(seed, "order", epoch), num_rows, positions)


def endless_order(seed: int, num_rows: int, positions: Positions) -> tuple[Positions, Positions]:
    """Return the epochs and the row indices at `positions` of the endless order, one permuted epoch after another."""
    epochs, inside = np.divmod(positions, num_rows)
    indices = np.empty_like(inside)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        indices[here] = row_indices(seed, epoch, num_rows, inside[here])
    return epochs, indices


def permute(key: int, size: int, positions: Positions) -> Positions:
    """Return the images of `positions` under the permutation of [0, size) that `key` selects.

    A Feistel network on pairs (left < a, right < b) with a * b just above `size`, and cycle walking. Needs constant
    memory for any size. Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002; the round function is
    the finalizer of splitmix64.
    """
    images = _feistel(key, size, positions)
    # cycle walking: the network permutes [0, a * b), a little more than [0, size). Applying it again to an image
    # outside of [0, size) follows the cycle of its position, which must come back inside; so no two images collide.
    while (outside := images >= size).any():
        images[outside] = _feistel(key, size, images[outside])
    return images


def _feistel(key: int, size: int, positions: Positions) -> Positions:
    # the smallest grid with about square sides that holds [0, size): few images fall outside of it
    a = isqrt(size - 1) + 1
    b = -(-size // a)
    left, right = np.divmod(positions.astype(np.uint64), np.uint64(b))
    for left_key, right_key in _round_keys(key):
        # each half is shifted by a hash of the other one, which is known when undoing it: hence a permutation
        left = (left + _scramble(right + left_key)) % np.uint64(a)
        right = (right + _scramble(left + right_key)) % np.uint64(b)
    return (left * np.uint64(b) + right).astype(np.int64)


@lru_cache(maxsize=64)
def _round_keys(key: int) -> list[tuple[np.uint64, np.uint64]]:
    keys = [np.uint64(derive_seed(key, "round", i)) for i in range(2 * ROUNDS)]
    return list(zip(keys[::2], keys[1::2], strict=True))


def _scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash `x` to a number below 2^62. Adding half of an index to it cannot overflow."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(2)
