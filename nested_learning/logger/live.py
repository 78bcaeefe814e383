"""The live view of a run on a terminal: a table that is redrawn at every log."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from nested_learning.logger.protocol import Value
from nested_learning.logger.smoothing import Smoothed, half_life
from nested_learning.logger.words import Clock, describe, duration, number, pace, thousands

LOSS, SMOOTHED = "train/loss", "train/loss_ema"
# rows of cells
Panel = Sequence[tuple[str, ...]]
SECONDS, WALL, LOST, BYTES = "perf/seconds/", "perf/wall_seconds", "perf/lost_seconds", "perf/memory_bytes"
# of each group of parameters; metrics.jsonl has them, and the plots of a report
RATES = "optim/lr/"
# columns that a panel needs
PANEL = 36
# lines of the table without panels, and of the cursor below
FRAME = 2


def can_redraw(console: Console) -> bool:
    """Say whether standard output is a terminal that can move its cursor."""
    return sys.stdout.isatty() and not console.is_dumb_terminal


class LiveConsole:
    """Shows one live table of the latest metrics; validations are printed above it and stay.

    `history`: the lines that earlier processes logged, so that the running mean continues from them.
    """

    def __init__(self, clock: Clock, console: Console, history: Iterable[Mapping[str, Any]] = ()) -> None:
        self._clock, self._step = clock, clock.start_step
        self._metrics: dict[str, Value] = {}
        self._smoothed: Smoothed | None = None
        for line in history:
            self._take(line["step"], {name: value for name, value in line.items() if value is not None})
        self._live = Live(self.view(console.width, console.height), console=console, auto_refresh=False)
        self._live.start()

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Redraw the table; print validations as a line above it."""
        self._take(step, values)
        console = self._live.console
        if "split" in values and values["split"] != "train":
            console.print("  ".join([f"step {step}", *describe(values)]), highlight=False, markup=False)
        self._live.update(self.view(console.width, console.height), refresh=True)

    def rewind(self, step: int) -> None:
        """Do nothing: the next line shows the step."""

    def close(self) -> None:
        """Leave the last state of the table on the screen."""
        self._live.stop()

    def view(self, width: int, height: int) -> RenderableType:
        """Return the table of the latest metrics: panels next to each other and below, as many as the screen has room.

        `width` and `height` of the screen are in letters and lines.
        """
        total, metrics = self._clock.total_steps, self._metrics
        head = Table.grid(padding=(0, 2), expand=True)
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(no_wrap=True)
        right = "  ".join([*pace(metrics), *self._clock.eta(self._step)])
        head.add_row(f"step {self._step}/{total}", ProgressBar(total=total, completed=self._step), right)
        rows = arrange([panel for panel in panels_of(metrics) if panel], max(1, width // PANEL), height - FRAME)
        return Group(head, *map(_side_by_side, rows))

    def _take(self, step: int, values: Mapping[str, Value]) -> None:
        self._step = step
        self._metrics |= dict(values)
        tokens, loss = values.get("tokens", 0), values.get(LOSS)
        if not (isinstance(loss, float) and isinstance(tokens, int) and step and tokens):
            return
        if self._smoothed is None:
            self._smoothed = Smoothed(half_life(step, tokens, self._clock.total_steps))
        self._metrics[SMOOTHED] = self._smoothed.add(tokens, loss)


def panels_of(metrics: Mapping[str, Value]) -> list[list[tuple[str, ...]]]:
    """Return the rows of each panel: losses and the optimizer; where the time went; memory statistics."""
    names = [LOSS, SMOOTHED, *(name for name in metrics if name.startswith("val/") and name.count("/") == 1)]
    names += [name for name in metrics if name.startswith("optim/") and not name.startswith(RATES)]
    return [
        [(name, number(metrics[name])) for name in names if name in metrics],
        time_split(metrics),
        memories(metrics),
    ]


def time_split(metrics: Mapping[str, Value]) -> list[tuple[str, ...]]:
    """Return the fraction of wall time of every phase, the largest first, and the peak memory."""
    if WALL not in metrics or not float(metrics[WALL]):
        return []
    wall = float(metrics[WALL])
    spent = {name.removeprefix(SECONDS): float(value) for name, value in metrics.items() if name.startswith(SECONDS)}
    spent["lost"] = float(metrics[LOST])
    rows = [(name, f"{seconds / wall:.1%}") for name, seconds in spent.items() if seconds >= 0.0005 * wall]
    rows.sort(key=lambda row: -spent[row[0]])
    return [("time", duration(wall)), *rows, ("memory", f"{thousands(float(metrics[BYTES]))}B")]


def memories(metrics: Mapping[str, Value]) -> list[tuple[str, ...]]:
    """Return a row for each memory or level, a column for each of its metrics."""
    table: dict[str, dict[str, str]] = {}
    for name, value in metrics.items():
        if name.startswith("memory/") and name.count("/") == 2:
            _, memory, metric = name.split("/")
            table.setdefault(memory, {})[metric] = number(value)
    names = list(dict.fromkeys(metric for row in table.values() for metric in row))
    rows = [(memory, *(row.get(metric, "") for metric in names)) for memory, row in table.items()]
    return [("memory", *names), *rows] if rows else []


def arrange(panels: Sequence[Panel], num_columns: int, num_lines: int) -> list[Sequence[Panel]]:
    """Return the panels of each row of the screen, without those that would not fit into `num_lines`; the first always.

    A panel that does not fit leaves its place to the next ones.
    """
    rows: list[Sequence[Panel]] = []
    left = num_lines
    for first in range(0, len(panels), num_columns):
        row = panels[first : first + num_columns]
        needed = max(map(len, row))
        if not rows or needed <= left:
            rows.append(row)
            left -= needed
    return rows


def _side_by_side(panels: Sequence[Panel]) -> Table:
    body = Table.grid(padding=(0, 2), expand=True)
    for _ in panels:
        body.add_column(ratio=1)
    body.add_row(*map(_grid, panels))
    return body


def _grid(rows: Sequence[tuple[str, ...]]) -> Table:
    grid = Table.grid(padding=(0, 1), expand=False)
    for _ in rows[0]:
        grid.add_column(no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    return grid
