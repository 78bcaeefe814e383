"""`data=needles`: documents in which something is hidden and asked for at the end: what `evals=niah` asks."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256

import numpy as np

from nested_learning.data.choose_tokenizer import check_choice, make_tokenizer
from nested_learning.data.haystack import NOISE, Tokens
from nested_learning.data.needle_tasks import ADJECTIVES, ALL_TASKS, NOUNS, NeedleTask
from nested_learning.data.prompts import Prompts
from nested_learning.data.source import IGNORE, DataConfig, Row, require_at_least, require_one_of
from nested_learning.data.synthetic import EPOCH_ROWS
from nested_learning.data.text import read_documents
from nested_learning.data.tokenizer import Tokenizer
from nested_learning.data.words import WORD, WordTokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.seeds import derive_seed


@dataclass(kw_only=True)
class NeedlesConfig(DataConfig):
    """Rows of documents of needle `tasks`, each as likely: what is hidden, the question, its answer.

    Documents have `min_length` to `seq_len` tokens, short ones more often (log-uniform), and fill each row exactly; the
    state goes on from one to the next. The needle is at any depth. Numbers have `digits` digits. `train_on`: asked, the
    answer and the end after it; or all, every next token. `tokenizer`: words, those that all tasks are made of; byte;
    or the path of one. `path`: the books of an essay haystack, as in data=text. Source: ours, after RULER.
    """

    name: str = "needles"
    batch_size: int = 16
    val_rows: int = 64
    seq_len: int = 512
    min_length: int = 128
    tasks: list[str] = field(default_factory=lambda: ["niah_single_1"])
    digits: int = 7
    train_on: str = "asked"
    tokenizer: str = "words"
    path: str | list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer != "words":
            check_choice(self.tokenizer, None)
        # eight others are drawn beside a number
        require_at_least(2, digits=self.digits)
        require_one_of(("asked", "all"), train_on=self.train_on)
        if not self.tasks:
            raise ConfigError(f"data.tasks=[]: name some of {', '.join(ALL_TASKS)}")
        for task in self.tasks:
            require_one_of(tuple(ALL_TASKS), tasks=task)
        if not 1 <= self.min_length <= self.seq_len:
            raise ConfigError(
                f"data.min_length={self.min_length}: must be 1 to data.seq_len={self.seq_len}; use data.min_length=128"
            )
        if self.path is None and any(ALL_TASKS[task].haystack == "essay" for task in self.tasks):
            raise ConfigError("data.path is missing: a task hides something in books; use data.path=<text files>")

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "NeedlesSource":
        """Read the books. Raises DataError for rows that are too short."""
        paths = [self.path] if isinstance(self.path, str) else self.path or []
        return NeedlesSource(self, seed, tokenizer or self._tokenizer(), read_documents(paths))

    def _tokenizer(self) -> Tokenizer:
        return all_words() if self.tokenizer == "words" else make_tokenizer(self.tokenizer, None, [])


class NeedlesSource:
    """A Source of needle documents: rows are functions of (seed, split, epoch, index), never the same twice."""

    def __init__(self, config: NeedlesConfig, seed: int, tokenizer: Tokenizer, books: Sequence[str]) -> None:
        self._config, self._seed, self._tokenizer = config, seed, tokenizer
        self.tokenizer: Tokenizer | None = tokenizer
        self.vocab_size, self.seq_len = tokenizer.vocab_size, config.seq_len
        tasks = [with_digits(ALL_TASKS[name], config.digits) for name in config.tasks]
        self._prompts = [Prompts(task, tokenizer, books) for task in tasks]
        digest = sha256(tokenizer.fingerprint.encode())
        task = {name: value for name, value in asdict(config).items() if name not in ("batch_size", "val_rows", "path")}
        digest.update(repr((task, seed)).encode())
        for book in books:
            digest.update(sha256(book.encode()).digest())
        self.fingerprint = digest.hexdigest()

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        return {"train": EPOCH_ROWS, "validation": self._config.val_rows}[split]

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of an epoch: equal arguments give equal rows. Raises DataError for one too short."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        rng = np.random.default_rng(derive_seed(self._seed, self._config.name, split, epoch, index))
        documents = list(self._documents(rng))
        sizes = [len(tokens) for tokens, _ in documents]
        row = np.concatenate([tokens for tokens, _ in documents])
        targets = np.append(row[1:], self._tokenizer.end)
        asked = np.concatenate(
            [np.arange(size) >= size - count for size, (_, count) in zip(sizes, documents, strict=True)]
        )
        return Row(row, np.where(asked, targets, IGNORE), np.repeat(np.arange(len(sizes)), sizes))

    def _documents(self, rng: np.random.Generator) -> Iterator[tuple[Tokens, int]]:
        """Draw the documents of a row, and how many last tokens of each have a target."""
        end, least, left = np.array([self._tokenizer.end]), self._config.min_length, self.seq_len
        while left:
            prompts = self._prompts[rng.integers(len(self._prompts))]
            secret = prompts.draw(rng)
            around = len(secret.answer) + 1
            shortest = secret.num_tokens + around
            if shortest > left == self.seq_len:
                raise DataError(f"data.seq_len={left}: too short for a document; use at least data.seq_len={shortest}")
            if shortest > left:
                yield end.repeat(left), 0
                return
            shortest = max(shortest, min(least, left))
            length = round(shortest * (left / shortest) ** rng.random())
            length = left if left - length < least else length
            prompt = prompts.hide(secret, rng, length - around, rng.random())
            count = around if self._config.train_on == "asked" else length
            yield np.concatenate([end, prompt.context, prompt.question, prompt.answer]), count
            left -= length


def with_digits(task: NeedleTask, digits: int) -> NeedleTask:
    """Return `task` with numbers of `digits` digits."""
    return replace(task, digits=digits)


def all_words() -> WordTokenizer:
    """Return the tokenizer of all words that needle tasks are made of, books aside. Source: ours."""
    texts = [NOISE, *(f" {word}" for word in ADJECTIVES), *(f"-{word}" for word in NOUNS)]
    for task in ALL_TASKS.values():
        texts += [task.opening(), task.sentence(task.needle("", "")), task.question([""])]
    return WordTokenizer(sorted({word for text in texts for word in WORD.findall(text)}))
