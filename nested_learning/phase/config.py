"""What a phase can be configured with. This file must not import torch."""

from dataclasses import dataclass
from typing import ClassVar

from nested_learning.typed import PathText

# what every phase reads that opens a run
READS = frozenset({"phase", "checkpoint", "weights", "model", "launcher"})


@dataclass(kw_only=True)
class PhaseConfig:
    """A phase without settings, which reads the model of `checkpoint=`; its code is `run` of `phase/<name>.py`."""

    # whether it trains a run of its own; every other phase reads one
    trains: ClassVar[bool] = False
    # the keys of the root that its code reads, others are refused when they are given; None: all
    reads: ClassVar[frozenset[str] | None] = None

    name: str


@dataclass(kw_only=True)
class TrainPhaseConfig(PhaseConfig):
    """`phase=train`: makes a run, or resumes one."""

    trains: ClassVar[bool] = True


@dataclass(kw_only=True)
class EvalPhaseConfig(PhaseConfig):
    """`phase=eval`: runs the packs of `evals=`."""

    reads: ClassVar[frozenset[str] | None] = READS | {"data", "seed", "memory", "evals", "name", "device", "backend"}


@dataclass(kw_only=True)
class SamplePhaseConfig(PhaseConfig):
    """`phase=sample`: continues `prompt=`."""

    reads: ClassVar[frozenset[str] | None] = READS | {"prompt", "sampling", "seed", "memory", "device"}


@dataclass(kw_only=True)
class ExportConfig(PhaseConfig):
    """`phase=export`: `to` is the directory to write, None for the folder `export` of the run."""

    reads: ClassVar[frozenset[str] | None] = READS

    to: PathText | None
