"""Loading and storing tiles of a matrix. Tile sizes are powers of two; the sizes of the matrix need not be."""

from typing import no_type_check

import triton
import triton.language as tl

# tensor cores multiply tiles of at least 16 by 16
SMALLEST = 16


@triton.jit
@no_type_check
def load(at, rows, columns, height, width, stride):
    """Load the tile `rows` x `columns` of the matrix `[height width]` at the address `at`; 0 outside of the matrix."""
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    return tl.load(at + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
@no_type_check
def store(at, tile, rows, columns, height, width, stride):
    """Store a tile where `load` would load it from."""
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    tl.store(at + rows[:, None] * stride + columns[None, :], tile, mask=inside)
