"""`data=parity`: is the number of ones so far odd? One bit of state, kept for as long as the row is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, require_at_least
from nested_learning.data.tasks.synthetic import SyntheticConfig
from nested_learning.errors import ConfigError

BLANK = 2


@dataclass(kw_only=True)
class ParityConfig(SyntheticConfig):
    """Rows of random bits, then blanks without target: the target at every bit is the parity of the bits so far.

    The first of the formal languages of Bhattamishra et al. (arXiv 2009.11264); a row is solved when every position is
    right. Models without a state that can flip, attention among them, fail beyond the lengths they were trained on.

    Rows hold `min_length` to `max_length` bits, each length as likely; with the blanks all are `max_length` long.
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
        """Every row is as long as the longest may be."""
        return self.max_length

    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets, both [seq_len], of one row."""
        bits = rng.integers(2, size=rng.integers(self.min_length, self.max_length, endpoint=True))
        missing = (0, self.max_length - len(bits))
        parity = np.cumsum(bits) % 2
        return np.pad(bits, missing, constant_values=BLANK), np.pad(parity, missing, constant_values=IGNORE)
