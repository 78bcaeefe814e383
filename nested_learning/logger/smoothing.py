"""A running mean for the eye; nothing is ever decided by it, and metrics.jsonl has the values as they are."""

import math

# of the tokens of the whole run
HALF_LIFE = 0.02


class Smoothed:
    """An exponential mean in which a value counts half as much `half_life` tokens later; it has no bias to a start."""

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self._sum = self._weight = 0.0
        self._tokens = 0

    def add(self, tokens: int, value: float) -> float:
        """Take in the `value` after `tokens`, which counts for all tokens since the one before; return the mean."""
        keep = math.exp2((self._tokens - tokens) / self.half_life)
        self._sum = keep * self._sum + (1 - keep) * value
        self._weight = keep * self._weight + (1 - keep)
        self._tokens = tokens
        return self._sum / self._weight


def half_life(step: int, tokens: int, total_steps: int) -> float:
    """Return the half-life for a run of `total_steps` that has read `tokens` in `step` steps."""
    return HALF_LIFE * total_steps * tokens / step
