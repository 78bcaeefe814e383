"""Metrics on standard output: a live table on a terminal, one line per log in a file or pipe."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console

from nested_learning.logger.live import LiveConsole, can_redraw
from nested_learning.logger.protocol import Logger, Value
from nested_learning.logger.words import Clock, describe


def open_console(total_steps: int, start_step: int = 0, history: Iterable[Mapping[str, Any]] = ()) -> Logger:
    """Open the console logger that fits standard output: live on a terminal, plain otherwise.

    A terminal that cannot move its cursor (TERM=dumb) gets plain lines too. `history`: what was logged until now.
    """
    # lines that are printed above the live view may be commands, which are copied: they must not be broken
    clock, console = Clock(total_steps, start_step), Console(soft_wrap=True)
    return LiveConsole(clock, console, history) if can_redraw(console) else PlainConsole(clock)


class PlainConsole:
    """Writes one line per log: `step 120/300  train/loss 2.310  12.3k tok/s  eta 1m20s`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Write the line and flush it."""
        parts = [f"step {step}/{self._clock.total_steps}", *describe(values), *self._clock.eta(step)]
        print("  ".join(parts), flush=True)

    def rewind(self, step: int) -> None:
        """Do nothing: printed lines stay."""

    def close(self) -> None:
        """Do nothing: standard output stays open."""
