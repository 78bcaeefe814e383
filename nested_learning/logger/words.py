"""Metrics in few characters, and the remaining time."""

import time
from collections.abc import Callable, Mapping

from nested_learning.logger.protocol import Value

THROUGHPUT, MFU = "perf/tokens_per_second", "perf/mfu"


class Clock:
    """Estimates the remaining seconds from the pace since it was created."""

    def __init__(self, total_steps: int, start_step: int, now: Callable[[], float] = time.monotonic) -> None:
        self.total_steps = total_steps
        self.start_step = start_step
        self._now = now
        self._started = now()

    def seconds_left(self, step: int) -> float | None:
        """Return the seconds until the last step, or None before a first step has given a pace."""
        done = step - self.start_step
        return (self._now() - self._started) / done * (self.total_steps - step) if done > 0 else None

    def eta(self, step: int) -> list[str]:
        """Return `eta 1m20s`, or nothing when nothing is left or known."""
        left = self.seconds_left(step)
        return [] if left is None or step >= self.total_steps else [f"eta {duration(left)}"]


def describe(values: Mapping[str, Value]) -> list[str]:
    """Return `name value` for the main metrics, and the throughput last."""
    is_training = "split" not in values or values["split"] == "train"
    # what is spent, the rates of single groups, and what memories do at a validation are in metrics.jsonl
    unshown = ("perf/", "optim/lr/") if is_training else ("perf/", "memory/")
    names = [name for name in values if name not in ("tokens", "split") and not name.startswith(unshown)]
    return [f"{name} {number(values[name])}" for name in names] + pace(values)


def pace(values: Mapping[str, Value]) -> list[str]:
    """Return tokens per second, and the MFU where it is known."""
    shown = [f"{thousands(float(values[THROUGHPUT]))} tok/s"] if THROUGHPUT in values else []
    mfu = values.get(MFU)
    return shown + ([f"mfu {mfu:.1%}"] if isinstance(mfu, float) else [])


def number(value: Value) -> str:
    """Format a value: four significant digits; integers and text unchanged."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def decimal(value: float) -> str:
    """Format a result: four decimals, or four significant digits where decimals would hide it or be too many."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


def thousands(value: float | int) -> str:
    """Format a large number with k, M or G: 12345 -> 12.3k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def duration(seconds: float | int) -> str:
    """Write seconds as 45s, 1m20s or 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"
