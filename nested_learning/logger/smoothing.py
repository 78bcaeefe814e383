"""A running mean for display only; metrics.jsonl has the unsmoothed values."""

import math

# of the tokens of the whole run
HALF_LIFE = 0.02


class Smoothed:
    """An exponential mean, without bias to its first value; a value counts half as much after `half_life` tokens."""

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self._sum = self._weight = 0.0
        self._tokens = 0

    def add(self, tokens: int, value: float) -> float:
        """Add the `value` after `tokens`, weighted by the tokens since the last one; return the mean."""
        keep = math.exp2((self._tokens - tokens) / self.half_life)
        self._sum = keep * self._sum + (1 - keep) * value
        self._weight = keep * self._weight + (1 - keep)
        self._tokens = tokens
        return self._sum / self._weight


def half_life(step: int, tokens: int, total_steps: int) -> float:
    """Return the half-life for a run of `total_steps` that has read `tokens` in `step` steps."""
    return HALF_LIFE * total_steps * tokens / step
