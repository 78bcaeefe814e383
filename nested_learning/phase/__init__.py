"""What one command does, one file per option of `phase=`, each with `run(config) -> Result`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """The result of a phase: its run directory (None when none was created), and its final metrics by name."""

    directory: Path | None
    metrics: dict[str, float]
