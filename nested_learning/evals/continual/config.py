"""Options of the packs on forgetting."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.evals.config import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.continual.class_incremental import ReadSequence, TrainedSequence
    from nested_learning.evals.continual.continual import Continual
    from nested_learning.evals.continual.continual_memory import ContinualMemory


@dataclass(kw_only=True)
class ContinualConfig(EvalConfig):
    """What weights forget: `num_rows` validation rows of every domain, read with the weights after each of them.

    `batch_size` rows are read at once.
    """

    num_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_rows", "batch_size")

    def build(self, data: DataConfig) -> "Continual":
        """Return the pack for `data`."""
        from nested_learning.evals.continual.continual import Continual

        return Continual(self.num_rows, self.batch_size, resets=data.resets)


@dataclass(kw_only=True)
class ContinualMemoryConfig(EvalConfig):
    """What memories forget: `num_streams` readers read `num_rows` rows of every domain, one domain after the other.

    After each, `val_rows` validation rows of all domains are read; `batch_size` readers work at once.
    """

    num_streams: int
    num_rows: int
    val_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_streams", "num_rows", "val_rows", "batch_size")

    def build(self, data: DataConfig) -> "ContinualMemory":
        """Return the pack for `data`."""
        from nested_learning.evals.continual.continual_memory import ContinualMemory

        return ContinualMemory(self.num_streams, self.num_rows, self.val_rows, self.batch_size)


MODES = ("weights", "memory")


@dataclass(kw_only=True)
class ClassIncrementalConfig(EvalConfig):
    """Labels of unseen texts among all classes so far, after each task of data=classes.

    `mode`: weights asks the checkpoints of the run; memory, one session that reads the tasks and is not trained.
    `per_label`: texts of each label that are asked, null for all; `batch_size` at once. `joint`: a run with
    data.is_joint=true that was asked too, which intransigence is measured against.
    """

    mode: str
    per_label: int | None
    batch_size: int
    joint: str | None

    def __post_init__(self) -> None:
        self.one_of(MODES, "mode")
        self.at_least(1, "batch_size", *(["per_label"] if self.per_label is not None else []))

    def build(self, data: DataConfig) -> "TrainedSequence | ReadSequence":
        """Return the pack."""
        from nested_learning.evals.continual.class_incremental import ReadSequence, TrainedSequence

        kind = TrainedSequence if self.mode == "weights" else ReadSequence
        return kind(self.per_label, self.batch_size, self.joint)
