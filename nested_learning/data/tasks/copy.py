"""`data=copy`: repeat a random sequence, a test of memory capacity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, require_at_least
from nested_learning.data.tasks.synthetic import SyntheticConfig

BLANK, SEPARATOR, FIRST_SYMBOL = 0, 1, 2


@dataclass(kw_only=True)
class CopyConfig(SyntheticConfig):
    """Rows `symbols | separator | blanks`. The target at the i-th blank is the i-th symbol; no other position has one.

    The copy task of Neural Turing Machines (arXiv 1410.5401), with `length` symbols out of `num_symbols`. Tokens:
    0 blank, 1 separator, then the symbols.
    """

    name: str = "copy"
    length: int = 16
    num_symbols: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, length=self.length)
        require_at_least(2, num_symbols=self.num_symbols)

    @property
    def vocab_size(self) -> int:
        """Count blank, separator and symbols."""
        return FIRST_SYMBOL + self.num_symbols

    @property
    def seq_len(self) -> int:
        """Count the symbols, the separator and the blanks."""
        return 2 * self.length + 1

    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets, both [seq_len], of one row."""
        symbols = FIRST_SYMBOL + rng.integers(self.num_symbols, size=self.length)
        blanks, ignored = np.full(self.length, BLANK), np.full(self.length + 1, IGNORE)
        return np.concatenate([symbols, [SEPARATOR], blanks]), np.concatenate([ignored, symbols])
