"""`evals=babilong`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.babi import TASKS, find_task, read_stories, split_stories
from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.options.niah import read_books
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.babilong import BabilongPack


@dataclass(kw_only=True)
class BabilongPackConfig(EvalConfig):
    """`num_examples` questions of each of bAbI's `tasks` in texts of `lengths` tokens (0: the facts alone).

    `path`: the folder of the tasks; the last share `held_out` of a file's stories is asked, 1: all of them. `books`:
    the text between the facts, null is noise. The model goes on with at most `num_generated` tokens, which are part of
    the length; `batch_size` questions are asked at once.
    """

    path: str | None
    tasks: list[str]
    held_out: float
    books: str | None
    lengths: list[int]
    num_examples: int
    num_generated: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_examples", "num_generated", "batch_size")
        self.one_of(TASKS, "tasks")
        if not self.tasks:
            raise ConfigError(f"evals.babilong.tasks=[]: name some of {', '.join(TASKS)}")
        if not self.lengths or min(self.lengths) < 0 or len(set(self.lengths)) < len(self.lengths):
            raise ConfigError(f"evals.babilong.lengths={self.lengths}: must be one or more numbers, each once, or 0")
        if not 0 < self.held_out <= 1:
            raise ConfigError(f"evals.babilong.held_out={self.held_out}: must be above 0, and at most 1")

    def build(self, data: DataConfig) -> "BabilongPack":
        """Return the pack. Raises DataError for what is no bAbI."""
        from nested_learning.evals.babilong import BabilongPack

        folder = self.file(self.path, "the folder of bAbI's tasks, qa1_*.txt and so on")
        stories = {}
        for task in self.tasks:
            found = read_stories(find_task(folder, task, "evals.babilong.path"))
            stories[task] = split_stories(found, self.held_out)[1]
            if not stories[task]:
                raise DataError(f"evals.babilong.held_out={self.held_out}: leaves no story of {task}; use more")
        books = [] if self.books is None else read_books(self.books, "evals.babilong.books")
        return BabilongPack(stories, books, self.lengths, self.num_examples, self.num_generated, self.batch_size)
