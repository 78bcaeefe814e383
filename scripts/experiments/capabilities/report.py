"""The report on capabilities: every number and every verdict is computed from the run directories."""

from collections.abc import Sequence
from pathlib import Path

from nested_learning.report.runs import FinishedRun, describe_origin, summary_values
from scripts.experiments.capabilities.claims import MARKS, MIN_ACCURACY, MIN_BITS, NUM_ERRORS, SOLVED
from scripts.experiments.capabilities.memory_sections import ablation_section, recall_section
from scripts.experiments.capabilities.results import read_part
from scripts.experiments.capabilities.task_sections import formal_section, mad_section
from scripts.experiments.capabilities.trials import PARTS


def write_report(out: Path, path: Path) -> Path:
    """Write the report on the runs in `out` to `path`, its plots into figures/ next to it."""
    figures = path.parent / "figures"
    sections = {"formal": formal_section, "mad": mad_section, "recall": recall_section, "ablation": ablation_section}
    parts = [part for part in (read_part(out, name) for name in PARTS) if part.runs]
    lines = header(out, [run for part in parts for run in part.all_runs])
    for part in parts:
        lines += sections[part.part](part, figures)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def header(out: Path, runs: Sequence[FinishedRun]) -> list[str]:
    """Describe how and where the runs were made, and what the marks mean."""
    commands, origin = describe_origin(out, runs)
    legend = ", ".join(f"{mark} {word}" for word, mark in MARKS.items())
    return [
        "# Capabilities",
        "",
        *commands,
        "",
        f"{origin} {len(runs)} runs, {sum(summary_values(runs, 'cpu_seconds')) / 60:.0f} CPU minutes of "
        "training. Numbers are means over the seeds ± their standard error.",
        "",
        f"Claims of the papers are marked: {legend}. A task is solved at {SOLVED:.0%} or more. A claim is reproduced "
        "if every seed agrees; it is not decidable if seeds disagree, or while the accuracy still rises (by more than "
        f"{MIN_ACCURACY:.0%} between the last two validations). A difference counts if it is at least {NUM_ERRORS} "
        f"standard errors of its mean over seeds and at least {MIN_ACCURACY:.0%} of accuracy or {MIN_BITS} bits per "
        "byte. All models of a part read the same rows with the same optimizer, except where noted.",
        "",
    ]
