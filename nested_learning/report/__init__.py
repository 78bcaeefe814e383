"""Reports: comparisons of a sweep's runs, and pages of one run or of many (`python -m nested_learning.report`)."""

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
