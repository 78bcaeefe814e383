"""`evals=core`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.core import Core


@dataclass(kw_only=True)
class CoreConfig(EvalConfig):
    """DCLM's CORE on files in the folder `path`: examples before each question, accuracies centred on chance.

    `tasks`: names, null for all whose files are there; `limit`: questions of each, null for all; `batch_size` questions
    are answered at once.
    """

    path: str | None
    tasks: list[str] | None
    limit: int | None
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "batch_size", *(["limit"] if self.limit is not None else []))
        if self.tasks is not None and not self.tasks:
            raise ConfigError("evals.core.tasks=[]: nothing to ask; name tasks, or give null for all")

    def build(self, data: DataConfig) -> "Core":
        """Return the pack; raise DataError where there is no such folder."""
        from nested_learning.evals.core import Core

        folder = self.file(self.path, "a folder with files such as arc_easy.jsonl")
        return Core(folder, self.tasks, self.batch_size, self.limit)
