"""The text of reports: numbers with their standard errors, tables, verdicts, and the command that made a report."""

import shlex
import sys
from collections.abc import Sequence

from nested_learning.report.sweep import mean_and_stderr, of_runs

# the cell of a table that has no value
MISSING = "-"


def format_mean(values: Sequence[float | None], digits: int, scale: float = 1.0) -> str:
    """Write `scale` times the mean of `values` ± its standard error (no error for one value, `-` for none).

    None is a run without the value; then the text says how many runs have it.
    """
    known = [scale * value for value in values if value is not None]
    if not known:
        return MISSING
    mean, error = mean_and_stderr(known)
    width = "" if error is None else f" ± {error:,.{digits}f}"
    return f"{mean:,.{digits}f}{width}{of_runs(len(known), len(values))}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def yes_or_no(holds: bool) -> str:
    """Write whether a claim holds, in bold."""
    return "**yes**" if holds else "**no**"


def verdict(claim: str, holds: bool) -> str:
    """Return a list item that states a claim and whether it holds."""
    return f"- {claim}: {yes_or_no(holds)}"


def command_line(module: str, *, without: Sequence[str] = ()) -> str:
    """Return the command that runs `module` with the arguments of this process, except the flags in `without`."""
    arguments = [word for word in sys.argv[1:] if word not in without]
    return shlex.join(["python", "-m", module, *arguments])
