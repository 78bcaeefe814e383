"""What a phase can be configured with. This file must not import torch."""

from dataclasses import dataclass
from typing import ClassVar

from nested_learning.typed import PathText


@dataclass(kw_only=True)
class PhaseConfig:
    """A phase without settings, which reads the model of `checkpoint=`; its code is `run` of `phase/<name>.py`."""

    # whether it trains a run of its own; every other phase reads one
    trains: ClassVar[bool] = False

    name: str


@dataclass(kw_only=True)
class TrainPhaseConfig(PhaseConfig):
    """`phase=train`: makes a run, or resumes one."""

    trains: ClassVar[bool] = True


@dataclass(kw_only=True)
class ExportConfig(PhaseConfig):
    """`phase=export`: `to` is the directory to write, None for the folder `export` of the run."""

    to: PathText | None
