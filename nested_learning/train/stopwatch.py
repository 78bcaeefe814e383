"""Time and memory of a run: every second counts to one phase, so that the phases sum to the wall time."""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

# the phases of a training step
TRAINING = ("data", "forward_backward", "optimizer")
PHASES = (*TRAINING, "validation", "checkpoint", "log", "compile", "other")


class Stopwatch:
    """Adds up the seconds of each of `PHASES`, and `lost` seconds: those of steps that were discarded.

    The clock `now` must be monotonic. One phase runs at a time: the innermost, `other` outside of all. On a GPU, work
    counts to the phase that waits for it, not the one that queued it; the end of a step waits for all but its update.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.lost = 0.0
        self._now, self._since, self._phase = now, now(), "other"

    def add_earlier(self, spent: Mapping[str, float], lost: float) -> None:
        """Add the seconds of earlier processes of this run, by phase, and those they lost."""
        for name, seconds in spent.items():
            self.seconds[name] += seconds
        self.lost += lost

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside as `name`, one of `PHASES`; afterwards the outer phase continues."""
        assert name in PHASES, name
        outside = self._enter(name)
        try:
            yield
        finally:
            self._enter(outside)

    def read(self) -> dict[str, float]:
        """Return the seconds of every phase until now."""
        self._enter(self._phase)
        return dict(self.seconds)

    def training(self) -> float:
        """Return the seconds of training steps: data, forward, backward and update."""
        seconds = self.read()
        return sum(seconds[name] for name in TRAINING)

    def wall(self) -> float:
        """Return all seconds until now, lost ones included."""
        return sum(self.read().values()) + self.lost

    def roll_back(self, spent: Mapping[str, float]) -> None:
        """Count the seconds after `spent` (by phase) as lost, because the run returns to a checkpoint made then."""
        self.lost += sum(self.read().values()) - sum(spent.values())
        self.seconds = dict.fromkeys(PHASES, 0.0) | dict(spent)

    def _enter(self, name: str) -> str:
        """Close the running phase, begin `name`, and return the phase that was running."""
        now, running = self._now(), self._phase
        self.seconds[running] += now - self._since
        self._since, self._phase = now, name
        return running


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: GPU memory on CUDA, else resident main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux KiB
    return peak if sys.platform == "darwin" else peak * 1024
