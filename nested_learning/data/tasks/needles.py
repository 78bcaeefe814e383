"""`data=needles`: needle-in-a-haystack documents, to train on the tasks that `evals=niah` tests."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from nested_learning.data.source import require_at_least, require_one_of
from nested_learning.data.tasks.haystack import NOISE, Tokens
from nested_learning.data.tasks.needle_tasks import ADJECTIVES, ALL_TASKS, NOUNS, NeedleTask
from nested_learning.data.tasks.prompts import Needles, Prompts
from nested_learning.data.tasks.qa_documents import DocumentSpec, QAConfig, QADocuments
from nested_learning.data.text.text import paths_of, read_documents, require_texts
from nested_learning.data.tokenizers.choose_tokenizer import make_tokenizer
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.data.tokenizers.words import WordTokenizer, word_tokenizer
from nested_learning.errors import ConfigError
from nested_learning.typed import DigitCount, PathText


@dataclass(kw_only=True)
class NeedlesConfig(QAConfig):
    """Documents of needle `tasks`, drawn uniformly, the needle at a random depth. Numbers have `digits` digits.

    `path`: the books of an essay haystack, as in data=text. The tasks are RULER's, arXiv 2404.06654, which only tests
    on them.
    """

    name: str = "needles"
    tasks: list[str] = field(default_factory=lambda: ["niah_single_1"])
    digits: DigitCount = 7
    path: PathText | list[PathText] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # there are too few numbers of one digit for the candidates of a prompt
        require_at_least(2, digits=self.digits)
        if not self.tasks:
            raise ConfigError(
                f"data.tasks=[]: must name at least one of {', '.join(ALL_TASKS)}; use data.tasks=[niah_single_1]"
            )
        for task in self.tasks:
            require_one_of(tuple(ALL_TASKS), tasks=task)
        if self.path is None and any(ALL_TASKS[task].haystack == "essay" for task in self.tasks):
            raise ConfigError("data.path is missing: one of data.tasks needs an essay haystack; use data.path=<books>")

    def unread(self) -> dict[str, str]:
        """Return the keys that these settings do not read, each with the reason."""
        if any(ALL_TASKS[task].haystack == "essay" for task in self.tasks):
            return {}
        return {"path": "no task of data.tasks has an essay haystack"}

    @property
    def evaluation(self) -> list[str]:
        """Return the overrides of `phase=eval` that test what this data teaches."""
        return ["evals=niah", f"evals.niah.digits={self.digits}"]

    def require_files(self, key: str = "data") -> None:
        """Raise DataError for books that are missing or no plain text."""
        require_texts(self.path, f"{key}.path")

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "NeedlesSource":
        """Read the books. Raises DataError for a path without text."""
        if tokenizer is None:
            tokenizer = all_words() if self.tokenizer == "words" else make_tokenizer(self.tokenizer, None, [])
        return NeedlesSource(self, seed, tokenizer, read_documents(paths_of(self.path)))


class NeedlesSource(QADocuments[tuple[Prompts, Needles]]):
    """A Source of needle documents. `books`: the texts of essay haystacks."""

    def __init__(self, config: NeedlesConfig, seed: int, tokenizer: Tokenizer, books: Sequence[str]) -> None:
        task = {name: asdict(config)[name] for name in ("tasks", "digits")}
        lengths = (config.min_length, config.seq_len)
        super().__init__(tokenizer, seed, lengths, config.val_rows, config.train_on, [repr(task), *books])
        self._prompts = [
            Prompts(with_digits(ALL_TASKS[name], config.digits), tokenizer, books) for name in config.tasks
        ]

    def spec(self, rng: np.random.Generator, split: str) -> DocumentSpec[tuple[Prompts, Needles]]:
        """Draw a task and its needles."""
        prompts = self._prompts[rng.integers(len(self._prompts))]
        needles = prompts.draw(rng)
        return DocumentSpec((prompts, needles), needles.num_tokens + len(needles.answer), len(needles.answer) + 1)

    def document(self, rng: np.random.Generator, spec: DocumentSpec[tuple[Prompts, Needles]], length: int) -> Tokens:
        """Return a document of `length` tokens: the needles in a haystack, the question, the answer."""
        prompts, needles = spec.content
        prompt = prompts.hide(needles, rng, length - len(needles.answer), rng.random())
        return np.concatenate([prompt.context, prompt.question, prompt.answer])


def with_digits(task: NeedleTask, digits: int) -> NeedleTask:
    """Return `task` with numbers of `digits` digits."""
    return replace(task, digits=digits)


def all_words() -> WordTokenizer:
    """Return the tokenizer of all words in needle tasks, except those of books."""
    texts = [NOISE, *(f" {word}" for word in ADJECTIVES), *(f"-{word}" for word in NOUNS)]
    for task in ALL_TASKS.values():
        texts += [task.opening(), task.sentence(task.needle("", "")), task.question([""])]
    return word_tokenizer(texts)
