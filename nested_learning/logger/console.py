"""Figures for the person at the terminal: a live line where there is one, plain dense lines in a file or pipe."""

import sys
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Column

from nested_learning.logger.protocol import Logger, Value

THROUGHPUT = "perf/tokens_per_second"
# bookkeeping that the line says in another way or that would only widen it
UNSHOWN = {"tokens", "split", "perf/seconds", "perf/cpu_seconds", THROUGHPUT}


def open_console(total_steps: int, start_step: int = 0) -> Logger:
    """Open the console logger that fits standard output: live on a terminal, plain otherwise. Source: ours.

    A terminal that cannot move its cursor (TERM=dumb) gets plain lines too.
    """
    clock, console = Clock(total_steps, start_step), Console()
    is_live = sys.stdout.isatty() and not console.is_dumb_terminal
    return LiveConsole(clock, console) if is_live else PlainConsole(clock)


class Clock:
    """Estimates the seconds that are left from the pace since it was made."""

    def __init__(self, total_steps: int, start_step: int, now: Callable[[], float] = time.monotonic) -> None:
        self.total_steps = total_steps
        self.start_step = start_step
        self._now = now
        self._started = now()

    def seconds_left(self, step: int) -> float | None:
        """Return the seconds until the last step, or None before a first step has given a pace."""
        done = step - self.start_step
        return (self._now() - self._started) / done * (self.total_steps - step) if done > 0 else None


class PlainConsole:
    """Writes one line per log: `step 120/300  train/loss 2.310  12.3k tok/s  eta 1m20s`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Write the line and flush it."""
        parts = [f"step {step}/{self._clock.total_steps}", *describe(values), *_eta(self._clock, step)]
        print("  ".join(parts), flush=True)

    def rewind(self, step: int) -> None:
        """Do nothing: what was printed stays."""

    def close(self) -> None:
        """Nothing to close: standard output is not ours."""


class LiveConsole:
    """Keeps one live line with a bar and the training figures; other splits are printed above it and stay."""

    def __init__(self, clock: Clock, console: Console) -> None:
        # on a narrow terminal the figures are cut, the step never is
        widest = Column(no_wrap=True, min_width=len(f"step {clock.total_steps}/{clock.total_steps}"))
        columns: list[ProgressColumn] = [
            TextColumn("step {task.completed:.0f}/{task.total:.0f}", table_column=widest),
            BarColumn(bar_width=12),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        ]
        self._clock = clock
        self._progress = Progress(*columns, console=console, auto_refresh=False)
        self._task = self._progress.add_task("", total=clock.total_steps, completed=clock.start_step)
        self._progress.start()

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Refresh the live line, or print a line above it when the figures are not of training."""
        if "split" in values and values["split"] != "train":
            self._progress.console.print("  ".join([f"step {step}", *describe(values)]), highlight=False, markup=False)
            return
        # what the optimizer and memories do is in metrics.jsonl; the line must fit a terminal
        figures = {name: value for name, value in values.items() if not name.startswith(("optim/", "memory/"))}
        line = "  ".join([*describe(figures), *_eta(self._clock, step)])
        self._progress.update(self._task, completed=step, description=line, refresh=True)

    def rewind(self, step: int) -> None:
        """Do nothing: the next line says the step."""

    def close(self) -> None:
        """Leave the last state of the line on the screen."""
        self._progress.stop()


def describe(values: Mapping[str, Value]) -> list[str]:
    """Return `name value` for every figure worth a place on the line, the throughput last. Source: ours."""
    is_training = "split" not in values or values["split"] == "train"
    # what memories do at a validation is many figures: they are in metrics.jsonl
    names = [name for name in values if name not in UNSHOWN and (is_training or not name.startswith("memory/"))]
    shown = [f"{name} {number(values[name])}" for name in names]
    if THROUGHPUT in values:
        shown.append(f"{thousands(float(values[THROUGHPUT]))} tok/s")
    return shown


def number(value: Value) -> str:
    """Write a figure in few characters: four significant digits, whole numbers and words as they are. Source: ours."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def thousands(value: float | int) -> str:
    """Write a large figure with k, M or G: 12345 -> 12.3k. Source: ours."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def duration(seconds: float | int) -> str:
    """Write seconds as 45s, 1m20s or 2h05m. Source: ours."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _eta(clock: Clock, step: int) -> list[str]:
    left = clock.seconds_left(step)
    return [] if left is None or step >= clock.total_steps else [f"eta {duration(left)}"]
