"""`data=recall`: multi-query associative recall across a gap, which a window shorter than the gap cannot solve."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, require_at_least
from nested_learning.data.tasks.synthetic import SyntheticConfig
from nested_learning.errors import ConfigError

BLANK = 0


@dataclass(kw_only=True)
class RecallConfig(SyntheticConfig):
    """Rows `k v k v ... | noise | k 0 k 0 ...`: the target at a key that is asked is its value, elsewhere none.

    Multi-query associative recall (Zoology, arXiv 2312.04927) with a gap (ours): a model whose layers see `window`
    tokens each knows nothing of the values once `gap` > layers * (window - 1). Tokens: 0 blank, keys, values, noise.

    `num_pairs`: keys with a value, all keys of a row different, values not, so that chance is 1 / `num_values`.
    `min_pairs`: rows hold that many to `num_pairs` pairs, each number as likely, and end in blanks; null: all rows hold
    `num_pairs`. `gap`: tokens of noise. `num_queries`: how many of the keys are asked for, in any order; null: all.
    `num_changed`: so many of the keys are shown once more behind the pairs, with another value, which is the one that
    counts (Zoology's forgetting variant).
    """

    name: str = "recall"
    num_pairs: int = 4
    gap: int = 32
    min_pairs: int | None = None
    num_queries: int | None = None
    num_keys: int = 23
    num_values: int = 24
    num_noise: int = 16
    num_changed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, num_pairs=self.num_pairs, num_values=self.num_values, num_noise=self.num_noise)
        require_at_least(0, gap=self.gap, num_changed=self.num_changed)
        require_at_least(1, num_queries=self._num_asked)
        if self.min_pairs is not None and not 1 <= self.min_pairs <= self.num_pairs:
            raise ConfigError(
                f"data.min_pairs={self.min_pairs}: must be 1 to data.num_pairs={self.num_pairs}; "
                f"use data.min_pairs=1, or null for rows of data.num_pairs"
            )
        if self._num_asked > self.num_pairs:
            raise ConfigError(
                f"data.num_queries={self.num_queries}: each query asks for another of the data.num_pairs="
                f"{self.num_pairs} keys; use at most data.num_queries={self.num_pairs}"
            )
        if self.num_changed > self.num_pairs:
            raise ConfigError(
                f"data.num_changed={self.num_changed}: there are data.num_pairs={self.num_pairs} keys to change; "
                f"use at most data.num_changed={self.num_pairs}"
            )
        if self.num_changed:
            require_at_least(2, num_values=self.num_values)
        if self.num_keys < self.num_pairs:
            raise ConfigError(
                f"data.num_keys={self.num_keys}: too few for data.num_pairs={self.num_pairs} different keys; "
                f"use at least data.num_keys={self.num_pairs}"
            )

    @property
    def vocab_size(self) -> int:
        """Count blank, keys, values and noise."""
        return self._first_noise + self.num_noise

    @property
    def seq_len(self) -> int:
        """Count the pairs, those that are changed, the gap, and the queries with their blanks."""
        return 2 * (self.num_pairs + self.num_changed) + self.gap + 2 * self._num_asked

    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets, both [seq_len], of one row."""
        count = self.num_pairs
        if self.min_pairs is not None:
            count = int(rng.integers(self.min_pairs, self.num_pairs, endpoint=True))
        keys = 1 + rng.permutation(self.num_keys)[:count]
        values = self._first_value + rng.integers(self.num_values, size=count)
        noise = self._first_noise + rng.integers(self.num_noise, size=self.gap)
        asked = rng.permutation(count)[: self._num_asked]
        queries = _interleave(keys[asked], np.full(len(asked), BLANK))
        pairs = _interleave(keys, values)
        if self.num_changed:
            changed = rng.permutation(count)[: self.num_changed]
            shift = rng.integers(1, self.num_values, size=len(changed))
            values[changed] = self._first_value + (values[changed] - self._first_value + shift) % self.num_values
            pairs = np.concatenate([pairs, _interleave(keys[changed], values[changed])])
        tokens = np.concatenate([pairs, noise, queries])
        targets = np.full(self.seq_len, IGNORE)
        targets[len(tokens) - len(queries) : len(tokens) : 2] = values[asked]
        return np.pad(tokens, (0, self.seq_len - len(tokens)), constant_values=BLANK), targets

    @property
    def _num_asked(self) -> int:
        return self.num_pairs if self.num_queries is None else self.num_queries

    @property
    def _first_value(self) -> int:
        return 1 + self.num_keys

    @property
    def _first_noise(self) -> int:
        return self._first_value + self.num_values


def _interleave(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([first, second], axis=1).reshape(-1)
