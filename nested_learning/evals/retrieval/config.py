"""Options of the packs on facts in long contexts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nested_learning.data.source import DataConfig
from nested_learning.data.tasks.babi import TASKS as BABI_TASKS
from nested_learning.data.tasks.babi import find_task, read_stories, split_stories
from nested_learning.data.tasks.facts import NAMES, THINGS, VALUES
from nested_learning.data.tasks.needle_tasks import ALL_TASKS, PASSKEY, TASKS
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.config import EvalConfig
from nested_learning.evals.retrieval.prompt_file import read_prompt_file
from nested_learning.typed import Count, DigitCount, Length, PathText

if TYPE_CHECKING:
    from nested_learning.evals.retrieval.babilong import BabilongPack
    from nested_learning.evals.retrieval.needle import NeedlePack
    from nested_learning.evals.retrieval.niah import NiahPack
    from nested_learning.evals.retrieval.prompts import PromptsPack


@dataclass(kw_only=True)
class NeedleConfig(EvalConfig):
    """Contexts of `num_facts` facts, and a question about one of them after the context is removed.

    There are `num_examples` examples with `num_candidates` answers each; `batch_size` are evaluated at once.
    """

    num_examples: Count
    num_facts: Count
    num_candidates: Count
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_examples", "num_facts", "batch_size")
        self.at_least(2, "num_candidates")
        # the control context states as many other facts
        for key, most in (("num_facts", len(THINGS) * len(NAMES) // 2), ("num_candidates", len(VALUES))):
            if vars(self)[key] > most:
                raise ConfigError(f"evals.needle.{key}={vars(self)[key]} must be at most {most}")

    def build(self, data: DataConfig) -> "NeedlePack":
        """Return the pack."""
        from nested_learning.evals.retrieval.needle import NeedlePack

        return NeedlePack(self.num_examples, self.num_facts, self.num_candidates, self.batch_size)


@dataclass(kw_only=True)
class HaystackConfig(EvalConfig):
    """Prompts of all `lengths` (tokens, with the first `end` token and the answer) and `depths` (percent).

    There are `num_examples` prompts of each, `batch_size` at once; the model generates at most `num_generated` tokens.
    Numbers have `digits` digits.
    """

    lengths: list[Length]
    depths: list[int]
    num_examples: Count
    num_generated: Length
    digits: DigitCount
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_examples", "num_generated", "batch_size")
        # there must be eight other numbers, as wrong candidates
        self.at_least(2, "digits")
        for key, most in (("lengths", None), ("depths", 100)):
            values: list[int] = vars(self)[key]
            if not values or min(values) < 0 or (most is not None and max(values) > most):
                between = f" between 0 and {most}" if most is not None else ""
                raise ConfigError(f"evals.{self.name}.{key}={values}: must be one or more numbers{between}")
            if len(set(values)) < len(values):
                raise ConfigError(f"evals.{self.name}.{key}={values}: must name each number once")

    def pack(self, tasks: list[str], books: list[str]) -> "NiahPack":
        """Return the pack of `tasks`; `books` are the texts of an essay haystack."""
        from nested_learning.evals.retrieval.niah import NiahPack, Size

        size = Size(self.lengths, self.depths, self.num_examples, self.num_generated)
        return NiahPack(self.name, tasks, size, self.digits, self.batch_size, books)


@dataclass(kw_only=True)
class NiahConfig(HaystackConfig):
    """RULER's needle `tasks`; `path`: the books of an essay haystack, a file, folder, glob or data set."""

    tasks: list[str]
    path: PathText | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.one_of(tuple(TASKS), "tasks")
        if not self.tasks:
            raise ConfigError(f"evals.niah.tasks=[]: name some of {', '.join(TASKS)}")

    def require_inputs(self, data: DataConfig) -> None:
        """Raise DataError or ConfigError for tasks with an essay haystack where `path` is missing."""
        if self._essays:
            if self.path is None:
                self.file(None, f"the books of the haystack of {self._essays[0]}, text files")
            self.inputs("path")

    def unread(self) -> dict[str, str]:
        """Return the keys that these settings do not read, each with the reason."""
        if self._essays:
            return {}
        essay = [task for task in TASKS if TASKS[task].haystack == "essay"]
        return {"path": f"no task of evals.niah.tasks has an essay haystack, as {', '.join(essay[:3])} have"}

    def build(self, data: DataConfig) -> "NiahPack":
        """Return the pack. Raises DataError for tasks with an essay haystack where `path` has no text."""
        self.require_inputs(data)
        return self.pack(self.tasks, self.texts("path") if self._essays else [])

    @property
    def _essays(self) -> list[str]:
        return [task for task in self.tasks if ALL_TASKS[task].haystack == "essay"]


@dataclass(kw_only=True)
class PasskeyConfig(HaystackConfig):
    """A pass key hidden in noise."""

    def build(self, data: DataConfig) -> "NiahPack":
        """Return the pack."""
        return self.pack([PASSKEY], [])


@dataclass(kw_only=True)
class BabilongPackConfig(EvalConfig):
    """`num_examples` questions of each of bAbI's `tasks` in texts of `lengths` tokens (0: the facts alone).

    `path`: the folder of the tasks. `held_out`: the last fraction of a file's stories, which is evaluated; 1 is all.
    `books`: the text between the facts; null is noise. The model generates at most `num_generated` tokens, which are
    part of the length; `batch_size` questions are evaluated at once.
    """

    path: PathText | None
    tasks: list[str]
    held_out: float
    books: PathText | None
    lengths: list[Length]
    num_examples: Count
    num_generated: Length
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_examples", "num_generated", "batch_size")
        self.one_of(BABI_TASKS, "tasks")
        if not self.tasks:
            raise ConfigError(f"evals.babilong.tasks=[]: name some of {', '.join(BABI_TASKS)}")
        if not self.lengths or min(self.lengths) < 0 or len(set(self.lengths)) < len(self.lengths):
            raise ConfigError(f"evals.babilong.lengths={self.lengths}: must be one or more numbers, each once, or 0")
        if not 0 < self.held_out <= 1:
            raise ConfigError(f"evals.babilong.held_out={self.held_out}: must be above 0, and at most 1")

    def require_inputs(self, data: DataConfig) -> None:
        """Raise DataError or ConfigError where a task's file or a book is missing."""
        self._files()
        if self.books is not None:
            self.inputs("books")

    def build(self, data: DataConfig) -> "BabilongPack":
        """Return the pack. Raises DataError for files that are not bAbI tasks."""
        from nested_learning.evals.retrieval.babilong import BabilongPack

        stories = {}
        for task, file in self._files().items():
            stories[task] = split_stories(read_stories(file), self.held_out)[1]
            if not stories[task]:
                raise DataError(f"evals.babilong.held_out={self.held_out}: leaves no story of {task}; use more")
        books = [] if self.books is None else self.texts("books")
        return BabilongPack(stories, books, self.lengths, self.num_examples, self.num_generated, self.batch_size)

    def _files(self) -> dict[str, Path]:
        folder = self.file_or_folder(self.path, "the folder of bAbI's tasks, qa1_*.txt and so on")
        return {task: find_task(folder, task, "evals.babilong.path") for task in self.tasks}


@dataclass(kw_only=True)
class PromptsConfig(EvalConfig):
    """Questions after contexts from the file `path`; `limit` of them, null for all.

    The model generates at most `num_generated` tokens; `batch_size` prompts are evaluated at once.
    """

    path: PathText | None
    limit: int | None
    num_generated: Length
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_generated", "batch_size", *(["limit"] if self.limit is not None else []))

    def require_inputs(self, data: DataConfig) -> None:
        """Raise DataError for a file that is not there."""
        self._file()

    def build(self, data: DataConfig) -> "PromptsPack":
        """Return the pack. Raises DataError for a file without prompts."""
        from nested_learning.evals.retrieval.prompts import PromptsPack

        return PromptsPack(read_prompt_file(self._file())[: self.limit], self.num_generated, self.batch_size)

    def _file(self) -> Path:
        return self.file(self.path, "a file of JSON lines with context, question and answers")
