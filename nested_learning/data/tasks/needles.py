"""`data=needles`: documents in which something is hidden and asked for at the end: what `evals=niah` asks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from nested_learning.data.source import DataConfig, require_at_least, require_one_of
from nested_learning.data.tasks.haystack import NOISE, Tokens
from nested_learning.data.tasks.needle_tasks import ADJECTIVES, ALL_TASKS, NOUNS, NeedleTask
from nested_learning.data.tasks.prompts import Needles, Prompts
from nested_learning.data.tasks.qa_documents import DocumentSpec, QADocuments
from nested_learning.data.text.text import read_documents
from nested_learning.data.tokenizers.choose_tokenizer import check_choice, make_tokenizer
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.data.tokenizers.words import WORD, WordTokenizer
from nested_learning.errors import ConfigError


@dataclass(kw_only=True)
class QAConfig(DataConfig):
    """Rows of `seq_len` tokens, filled with documents of `min_length` or more that end with a question and its answer.

    Short documents come more often (log-uniform); the state goes on from one to the next. `train_on`: asked, the answer
    and the end after it; or all, every next token. `tokenizer`: words, those that documents are made of, all else byte
    by byte; byte; or the path of one.
    """

    batch_size: int = 16
    val_rows: int = 64
    seq_len: int = 512
    min_length: int = 128
    train_on: str = "asked"
    tokenizer: str = "words"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer != "words":
            check_choice(self.tokenizer, None)
        require_one_of(("asked", "all"), train_on=self.train_on)
        if not 1 <= self.min_length <= self.seq_len:
            raise ConfigError(
                f"data.min_length={self.min_length}: must be 1 to data.seq_len={self.seq_len}; use data.min_length=128"
            )


@dataclass(kw_only=True)
class NeedlesConfig(QAConfig):
    """Documents of needle `tasks`, each as likely, the needle at any depth. Numbers have `digits` digits.

    `path`: the books of an essay haystack, as in data=text. Source: ours, after RULER, arXiv 2404.06654.
    """

    name: str = "needles"
    tasks: list[str] = field(default_factory=lambda: ["niah_single_1"])
    digits: int = 7
    path: str | list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # eight others are drawn beside a number
        require_at_least(2, digits=self.digits)
        if not self.tasks:
            raise ConfigError(f"data.tasks=[]: name some of {', '.join(ALL_TASKS)}")
        for task in self.tasks:
            require_one_of(tuple(ALL_TASKS), tasks=task)
        if self.path is None and any(ALL_TASKS[task].haystack == "essay" for task in self.tasks):
            raise ConfigError("data.path is missing: a task hides something in books; use data.path=<text files>")

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "NeedlesSource":
        """Read the books. Raises DataError for rows that are too short."""
        if tokenizer is None:
            tokenizer = all_words() if self.tokenizer == "words" else make_tokenizer(self.tokenizer, None, [])
        paths = [self.path] if isinstance(self.path, str) else self.path or []
        return NeedlesSource(self, seed, tokenizer, read_documents(paths))


class NeedlesSource(QADocuments[tuple[Prompts, Needles]]):
    """A Source of needle documents, from `books` where tasks have an essay haystack."""

    def __init__(self, config: NeedlesConfig, seed: int, tokenizer: Tokenizer, books: Sequence[str]) -> None:
        task = {name: asdict(config)[name] for name in ("tasks", "digits")}
        lengths = (config.min_length, config.seq_len)
        super().__init__(tokenizer, seed, lengths, config.val_rows, config.train_on, [repr(task), *books])
        self._prompts = [
            Prompts(with_digits(ALL_TASKS[name], config.digits), tokenizer, books) for name in config.tasks
        ]

    def spec(self, rng: np.random.Generator, split: str) -> DocumentSpec[tuple[Prompts, Needles]]:
        """Draw what is hidden."""
        prompts = self._prompts[rng.integers(len(self._prompts))]
        secret = prompts.draw(rng)
        return DocumentSpec((prompts, secret), secret.num_tokens + len(secret.answer), len(secret.answer) + 1)

    def document(self, rng: np.random.Generator, spec: DocumentSpec[tuple[Prompts, Needles]], length: int) -> Tokens:
        """Hide it in a haystack of the right length."""
        prompts, secret = spec.what
        prompt = prompts.hide(secret, rng, length - len(secret.answer), rng.random())
        return np.concatenate([prompt.context, prompt.question, prompt.answer])


def with_digits(task: NeedleTask, digits: int) -> NeedleTask:
    """Return `task` with numbers of `digits` digits."""
    return replace(task, digits=digits)


def all_words() -> WordTokenizer:
    """Return the tokenizer of all words that needle tasks are made of, books aside."""
    texts = [NOISE, *(f" {word}" for word in ADJECTIVES), *(f"-{word}" for word in NOUNS)]
    for task in ALL_TASKS.values():
        texts += [task.opening(), task.sentence(task.needle("", "")), task.question([""])]
    return of_words(texts)


def of_words(texts: Sequence[str]) -> WordTokenizer:
    """Return the tokenizer of all words in `texts`."""
    return WordTokenizer(sorted({word for text in texts for word in WORD.findall(text)}))
