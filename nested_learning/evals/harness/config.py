"""Options of the packs that run standard benchmarks."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.config import EvalConfig
from nested_learning.typed import PathText

if TYPE_CHECKING:
    from nested_learning.evals.harness.core import Core
    from nested_learning.evals.harness.zeroshot import ZeroShot


class TasksConfig(EvalConfig):
    """What packs of tasks in local files share."""

    def task_folder(self, path: str | None, tasks: list[str] | None, example: str) -> Path | None:
        """Return the folder `path` of files such as `example`, None where all `tasks` are of files of one's own.

        Raises ConfigError or DataError for tasks that are not known, and where there is no such folder.
        """
        from nested_learning.evals.harness.local_tasks import choose_tasks

        chosen = choose_tasks(self.name, tasks)
        if path is None and all("folder" in task for task in chosen.values()):
            return None
        return self.file_or_folder(path, f"a folder with files such as {example}")


@dataclass(kw_only=True)
class ZeroShotConfig(TasksConfig):
    """Multiple choice and last-word prediction with lm-evaluation-harness, on files in the folder `path`.

    `official`: use the harness's own tasks, which it downloads. `tasks`: names, or paths of files of tasks; null is all
    whose files are there. `limit`: documents of each task, null for all. `max_length`: the last tokens of a context
    with its continuation, null for any number. `batch_size` documents are evaluated at once.
    """

    path: PathText | None
    official: bool
    tasks: list[str] | None
    limit: int | None
    max_length: int | None
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "batch_size", *(["limit"] if self.limit is not None else []))
        if self.max_length is not None:
            self.at_least(2, "max_length")
        if self.tasks is not None and not self.tasks:
            raise ConfigError("evals.zeroshot.tasks=[]: no task is named; name tasks, or give null for all")
        if self.official and self.path is not None:
            raise ConfigError(
                f"evals.zeroshot.official=true brings its own data: leave evals.zeroshot.path={self.path} out"
            )

    def require_inputs(self, data: DataConfig) -> None:
        """Raise ConfigError or DataError for tasks or a folder that are not there."""
        self._folder()

    def build(self, data: DataConfig) -> "ZeroShot":
        """Return the pack; raise DataError where there is no such folder."""
        from nested_learning.evals.harness.zeroshot import ZeroShot

        return ZeroShot(
            self._folder(), self.tasks, self.batch_size, self.limit, self.max_length, is_official=self.official
        )

    def _folder(self) -> Path | None:
        return None if self.official else self.task_folder(self.path, self.tasks, "piqa.jsonl")


@dataclass(kw_only=True)
class CoreConfig(TasksConfig):
    """DCLM's CORE on files in the folder `path`: examples before each question, accuracies centred on random guessing.

    `tasks`: names, or paths of files of tasks; null is all whose files are there. `limit`: questions of each task, null
    for all. `batch_size` questions are evaluated at once.
    """

    path: PathText | None
    tasks: list[str] | None
    limit: int | None
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "batch_size", *(["limit"] if self.limit is not None else []))
        if self.tasks is not None and not self.tasks:
            raise ConfigError("evals.core.tasks=[]: no task is named; name tasks, or give null for all")

    def require_inputs(self, data: DataConfig) -> None:
        """Raise ConfigError or DataError for tasks or a folder that are not there."""
        self._folder()

    def build(self, data: DataConfig) -> "Core":
        """Return the pack; raise DataError where there is no such folder."""
        from nested_learning.evals.harness.core import Core

        return Core(self._folder(), self.tasks, self.batch_size, self.limit)

    def _folder(self) -> Path | None:
        return self.task_folder(self.path, self.tasks, "arc_easy.jsonl")
