"""How far long work is: a bar on a terminal, lines in a file or pipe."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nested_learning.logger.live import can_redraw
from nested_learning.logger.words import Clock

# seconds between two lines
PAUSE = 10.0

# takes how many of how many are done
Show = Callable[[int, int], None]


@contextmanager
def show_progress(title: str, unit: str = "examples") -> Iterator[Show]:
    """Yield a function that shows how many of how many are done, under `title`: on a terminal a bar, until the end."""
    console = Console(soft_wrap=True)
    if not can_redraw(console):
        yield ProgressLines(title, unit)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total, refresh=True)


class ProgressLines:
    """Prints `niah: 120 of 300 examples, eta 1m20s`, first at once, then every `PAUSE` seconds until all are done."""

    def __init__(self, title: str, unit: str = "examples", now: Callable[[], float] = time.monotonic) -> None:
        self._title, self._unit, self._now = title, unit, now
        self._clock: Clock | None = None
        self._printed = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Print the line where it is time for one."""
        if self._clock is None:
            self._clock, self._printed = Clock(total, done, self._now), self._now() - PAUSE
        if done < total and self._now() - self._printed >= PAUSE:
            self._printed = self._now()
            text = f"{self._title}: {done} of {total} {self._unit}"
            print(", ".join([text, *self._clock.eta(done)]), flush=True)
