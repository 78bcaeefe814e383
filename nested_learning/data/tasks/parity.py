"""`data=parity`: is the number of ones so far odd? A test of one bit of state."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, require_at_least
from nested_learning.data.tasks.synthetic import SyntheticConfig
from nested_learning.errors import ConfigError

BLANK = 2


@dataclass(kw_only=True)
class ParityConfig(SyntheticConfig):
    """Rows of random bits. The target at every bit is the parity of the bits up to and including it.

    The first of the formal languages of Bhattamishra et al. (arXiv 2009.11264). A row is solved when every position is
    correct. Models without a state that can flip, such as attention, fail beyond their training lengths.

    The number of bits is uniform between `min_length` and `max_length`; blanks without target fill up to `max_length`.
    """

    name: str = "parity"
    min_length: int = 2
    max_length: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, min_length=self.min_length, max_length=self.max_length)
        if self.max_length < self.min_length:
            raise ConfigError(
                f"data.max_length={self.max_length}: must be at least data.min_length={self.min_length}; "
                f"use data.max_length={self.min_length} or data.min_length={self.max_length}"
            )

    @property
    def vocab_size(self) -> int:
        """Count 0, 1 and blank."""
        return BLANK + 1

    @property
    def seq_len(self) -> int:
        """The length of every row, blanks included."""
        return self.max_length

    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets, both [seq_len], of one row."""
        bits = rng.integers(2, size=rng.integers(self.min_length, self.max_length, endpoint=True))
        missing = (0, self.max_length - len(bits))
        parity = np.cumsum(bits) % 2
        return np.pad(bits, missing, constant_values=BLANK), np.pad(parity, missing, constant_values=IGNORE)
