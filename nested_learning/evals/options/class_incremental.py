"""`evals=class_incremental`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.class_incremental import ReadSequence, TrainedSequence

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
        from nested_learning.evals.class_incremental import ReadSequence, TrainedSequence

        kind = TrainedSequence if self.mode == "weights" else ReadSequence
        return kind(self.per_label, self.batch_size, self.joint)
