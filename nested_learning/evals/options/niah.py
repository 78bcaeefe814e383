"""`evals=niah`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nested_learning.data.needle_tasks import ALL_TASKS, TASKS
from nested_learning.data.readers import Reader, find_inputs
from nested_learning.data.source import DataConfig
from nested_learning.errors import ConfigError, DataError
from nested_learning.evals.options.option import EvalConfig

if TYPE_CHECKING:
    from nested_learning.evals.niah import NiahPack


@dataclass(kw_only=True)
class HaystackConfig(EvalConfig):
    """Prompts of all `lengths` (tokens, the answer's and the beginning of the text included) and `depths` (percent).

    `num_examples` of each are asked, `batch_size` at once; the model goes on with at most `num_generated` tokens.
    Numbers have `digits` digits.
    """

    lengths: list[int]
    depths: list[int]
    num_examples: int
    num_generated: int
    digits: int
    batch_size: int

    def __post_init__(self) -> None:
        self.at_least(1, "num_examples", "num_generated", "batch_size")
        # eight others are drawn beside a number
        self.at_least(2, "digits")
        for key, most in (("lengths", None), ("depths", 100)):
            values: list[int] = vars(self)[key]
            if not values or min(values) < 0 or (most is not None and max(values) > most):
                between = f" between 0 and {most}" if most is not None else ""
                raise ConfigError(f"evals.{self.name}.{key}={values}: must be one or more numbers{between}")
            if len(set(values)) < len(values):
                raise ConfigError(f"evals.{self.name}.{key}={values}: each number once")

    def pack(self, tasks: list[str], books: list[str]) -> "NiahPack":
        """Return the pack of `tasks`; `books` are the texts of an essay haystack."""
        from nested_learning.evals.niah import NiahPack, Size

        size = Size(self.lengths, self.depths, self.num_examples, self.num_generated)
        return NiahPack(self.name, tasks, size, self.digits, self.batch_size, books)


@dataclass(kw_only=True)
class NiahConfig(HaystackConfig):
    """RULER's needle `tasks`; `path`: the books of an essay haystack, a file, folder, glob or data set."""

    tasks: list[str]
    path: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.one_of(tuple(TASKS), "tasks")
        if not self.tasks:
            raise ConfigError(f"evals.niah.tasks=[]: name some of {', '.join(TASKS)}")

    def build(self, data: DataConfig) -> "NiahPack":
        """Return the pack. Raises DataError for tasks with essays where `path` has no text."""
        needed = [task for task in self.tasks if ALL_TASKS[task].haystack == "essay"]
        return self.pack(self.tasks, self._books(needed[0]) if needed else [])

    def _books(self, task: str) -> list[str]:
        path = self.file(self.path, f"the books in which {task} hides something, text files")
        return read_books(str(path), "evals.niah.path")


def read_books(path: str, option: str) -> list[str]:
    """Return the texts in `path`, a file, folder, glob or data set; `option` names it. Raises DataError without any."""
    books = [text for each in find_inputs([path]) for text in Reader().read(each.name) if text]
    if not books:
        raise DataError(f"{option}={path}: no text there, what was found is empty or not utf-8")
    return books
