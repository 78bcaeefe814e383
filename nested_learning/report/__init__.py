"""Reports: what runs found side by side (`sweep.py`), and what happened in one of them (`python -m` on this folder)."""

from nested_learning.report.plots import HINT, plot_maps, plot_panels
from nested_learning.report.sweep import (
    SUMMARY,
    RunResult,
    Summary,
    conclude,
    mean_and_stderr,
    plot,
    read_curve,
    read_run,
    render,
    summarise,
    write_csv,
)

__all__ = [
    "HINT",
    "SUMMARY",
    "RunResult",
    "Summary",
    "conclude",
    "mean_and_stderr",
    "plot",
    "plot_maps",
    "plot_panels",
    "read_curve",
    "read_run",
    "render",
    "summarise",
    "write_csv",
]
