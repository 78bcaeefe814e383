"""`data=recall`: multi-query associative recall across a gap, which attention with a short window cannot solve."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import IGNORE, require_at_least
from nested_learning.data.tasks.synthetic import SyntheticConfig
from nested_learning.errors import ConfigError
from nested_learning.typed import Count

BLANK = 0


@dataclass(kw_only=True)
class RecallConfig(SyntheticConfig):
    """Rows `k v k v ... | noise | k 0 k 0 ...`. The target at a queried key is its value; no other position has one.

    Multi-query associative recall (Zoology, arXiv 2312.04927) with a gap, which is an addition of this project: a model
    whose layers see `window` tokens each cannot know the values once `gap` > layers * (window - 1). Tokens: 0 blank,
    then keys, values, noise.

    `num_pairs`: pairs of key and value in a row. Its keys are distinct, its values need not be, so random guessing
    scores 1 / `num_values`. `min_pairs`: the number of pairs is uniform between this and `num_pairs`, and shorter rows
    end in blanks; null: always `num_pairs`. `gap`: tokens of noise. `num_queries`: queried keys, in random order; null:
    all. `num_changed`: keys shown again after the pairs, with a new value, which is then the target (Zoology's
    forgetting variant).
    """

    name: str = "recall"
    num_pairs: Count = 4
    gap: int = 32
    min_pairs: int | None = None
    num_queries: int | None = None
    num_keys: int = 23
    num_values: int = 24
    num_noise: Count = 16
    num_changed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, num_pairs=self.num_pairs, num_values=self.num_values, num_noise=self.num_noise)
        require_at_least(0, gap=self.gap, num_changed=self.num_changed)
        require_at_least(1, num_queries=self._num_queried)
        if self.min_pairs is not None and not 1 <= self.min_pairs <= self.num_pairs:
            raise ConfigError(
                f"data.min_pairs={self.min_pairs}: must be 1 to data.num_pairs={self.num_pairs}; "
                f"use data.min_pairs=1, or null for always data.num_pairs"
            )
        if self._num_queried > self.num_pairs:
            raise ConfigError(
                f"data.num_queries={self.num_queries}: each query needs its own key, and there are data.num_pairs="
                f"{self.num_pairs}; use at most data.num_queries={self.num_pairs}"
            )
        if self.num_changed > self.num_pairs:
            raise ConfigError(
                f"data.num_changed={self.num_changed}: must be at most data.num_pairs={self.num_pairs}; "
                f"use data.num_changed={self.num_pairs}"
            )
        if self.num_changed:
            require_at_least(2, num_values=self.num_values)
        if self.num_keys < self.num_pairs:
            raise ConfigError(
                f"data.num_keys={self.num_keys}: too few for data.num_pairs={self.num_pairs} distinct keys; "
                f"use at least data.num_keys={self.num_pairs}"
            )

    @property
    def evaluation(self) -> list[str]:
        """Return the overrides of `phase=eval` that test what this data teaches."""
        return ["evals=recall"]

    @property
    def vocab_size(self) -> int:
        """Count blank, keys, values and noise."""
        return self._first_noise + self.num_noise

    @property
    def seq_len(self) -> int:
        """Count the tokens of all pairs, changed pairs, the gap, and the queries with their blanks."""
        return 2 * (self.num_pairs + self.num_changed) + self.gap + 2 * self._num_queried

    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets, both [seq_len], of one row."""
        count = self.num_pairs
        if self.min_pairs is not None:
            count = int(rng.integers(self.min_pairs, self.num_pairs, endpoint=True))
        keys = 1 + rng.permutation(self.num_keys)[:count]
        values = self._first_value + rng.integers(self.num_values, size=count)
        noise = self._first_noise + rng.integers(self.num_noise, size=self.gap)
        queried = rng.permutation(count)[: self._num_queried]
        queries = _interleave(keys[queried], np.full(len(queried), BLANK))
        pairs = _interleave(keys, values)
        if self.num_changed:
            changed = rng.permutation(count)[: self.num_changed]
            # a shift between 1 and num_values - 1, modulo num_values, never gives the old value
            shift = rng.integers(1, self.num_values, size=len(changed))
            values[changed] = self._first_value + (values[changed] - self._first_value + shift) % self.num_values
            pairs = np.concatenate([pairs, _interleave(keys[changed], values[changed])])
        tokens = np.concatenate([pairs, noise, queries])
        targets = np.full(self.seq_len, IGNORE)
        targets[len(tokens) - len(queries) : len(tokens) : 2] = values[queried]
        return np.pad(tokens, (0, self.seq_len - len(tokens)), constant_values=BLANK), targets

    @property
    def _num_queried(self) -> int:
        return self.num_pairs if self.num_queries is None else self.num_queries

    @property
    def _first_value(self) -> int:
        return 1 + self.num_keys

    @property
    def _first_noise(self) -> int:
        return self._first_value + self.num_values


def _interleave(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([first, second], axis=1).reshape(-1)
