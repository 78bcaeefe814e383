"""What one command does, one file per option of `phase=`, each with `run(config) -> Result`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What a phase hands back: the run directory it worked in (None: none was made), and its final figures by name."""

    directory: Path | None
    metrics: dict[str, float]
