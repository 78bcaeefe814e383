"""Options of the packs that measure forgetting."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.sequence import SequenceConfig
from nested_learning.data.source import DataConfig
from nested_learning.data.tasks.classes import ClassesConfig
from nested_learning.evals.config import EvalConfig, require_data
from nested_learning.typed import Count, PathText

if TYPE_CHECKING:
    from nested_learning.evals.continual.class_incremental import ReadSequence, TrainedSequence
    from nested_learning.evals.continual.continual import Continual
    from nested_learning.evals.continual.continual_memory import ContinualMemory


@dataclass(kw_only=True)
class ContinualConfig(EvalConfig):
    """Forgetting in the weights: `num_rows` validation rows of every domain, read with the weights after each domain.

    `batch_size` rows are read at once.
    """

    num_rows: Count
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_rows", "batch_size")

    def require_inputs(self, data: DataConfig) -> None:
        """Raise ConfigError for other data than sequence, DataError where its files are missing."""
        require_data(data, SequenceConfig, self.name, "sequence").require_files()

    def build(self, data: DataConfig) -> "Continual":
        """Return the pack for `data`."""
        from nested_learning.evals.continual.continual import Continual

        return Continual(self.num_rows, self.batch_size, resets=data.resets)


@dataclass(kw_only=True)
class ContinualMemoryConfig(EvalConfig):
    """Forgetting in the memories: `num_streams` sessions read `num_rows` rows of every domain, domain after domain.

    After each domain they read `val_rows` validation rows of all domains; `batch_size` sessions run at once.
    """

    num_streams: Count
    num_rows: Count
    val_rows: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_streams", "num_rows", "val_rows", "batch_size")

    def require_inputs(self, data: DataConfig) -> None:
        """Raise ConfigError for other data than sequence, DataError where its files are missing."""
        require_data(data, SequenceConfig, self.name, "sequence").require_files()

    def build(self, data: DataConfig) -> "ContinualMemory":
        """Return the pack for `data`."""
        from nested_learning.evals.continual.continual_memory import ContinualMemory

        return ContinualMemory(self.num_streams, self.num_rows, self.val_rows, self.batch_size)


MODES = ("weights", "memory")


@dataclass(kw_only=True)
class ClassIncrementalConfig(EvalConfig):
    """Class-incremental learning: label unseen texts among all classes so far, after each task of data=classes.

    `mode`: weights, evaluate the checkpoints of the run; memory, one session reads the tasks, without training.
    `per_label`: test texts of each label, null for all; `batch_size` at once. `joint`: an evaluated run with
    data.is_joint=true, the reference of intransigence.
    """

    mode: str
    per_label: int | None
    batch_size: int
    joint: PathText | None

    def __post_init__(self) -> None:
        self.one_of(MODES, "mode")
        self.at_least(1, "batch_size", *(["per_label"] if self.per_label is not None else []))

    def require_inputs(self, data: DataConfig) -> None:
        """Raise ConfigError for other data than classes, DataError where its files are missing."""
        require_data(data, ClassesConfig, self.name, "classes").require_files()

    def build(self, data: DataConfig) -> "TrainedSequence | ReadSequence":
        """Return the pack."""
        from nested_learning.evals.continual.class_incremental import ReadSequence, TrainedSequence

        kind = TrainedSequence if self.mode == "weights" else ReadSequence
        return kind(self.per_label, self.batch_size, self.joint)
