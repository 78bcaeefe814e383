"""What a run spends: every second belongs to one phase, so that the phases sum to the wall; and the peak of memory."""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

# of a step that is kept
TRAINING = ("data", "forward_backward", "optimizer")
PHASES = (*TRAINING, "validation", "checkpoint", "log", "compile", "other")


class Stopwatch:
    """Adds up the seconds of `PHASES`, and those that were `lost`: spent on what was thrown away.

    The clock `now` must never go back. One phase runs at a time: the innermost, `other` outside of all. On a GPU, work
    that was queued in one phase counts where it is waited for; a step waits at its end for all but its update.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.lost = 0.0
        self._now, self._since, self._phase = now, now(), "other"

    def go_on(self, spent: Mapping[str, float], lost: float) -> None:
        """Count on from what earlier processes spent, by phase, and lost."""
        for name, seconds in spent.items():
            self.seconds[name] += seconds
        self.lost += lost

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside as `name`, one of `PHASES`; outside goes on as what it was."""
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
        """Return the seconds of steps: data, forward, backward and update."""
        seconds = self.read()
        return sum(seconds[name] for name in TRAINING)

    def wall(self) -> float:
        """Return all seconds until now, lost ones too."""
        return sum(self.read().values()) + self.lost

    def go_back(self, spent: Mapping[str, float]) -> None:
        """Count what came after `spent`, seconds by phase, as lost: the run goes back to where it was then."""
        self.lost += sum(self.read().values()) - sum(spent.values())
        self.seconds = dict.fromkeys(PHASES, 0.0) | dict(spent)

    def _enter(self, name: str) -> str:
        """Count the time until now as the phase that ran, begin `name`, return what ran."""
        now, before = self._now(), self._phase
        self.seconds[before] += now - self._since
        self._since, self._phase = now, name
        return before


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory this process has held: of the GPU where it uses CUDA, else resident in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux KiB
    return peak if sys.platform == "darwin" else peak * 1024
