"""`data=babilong`: facts of bAbI stories scattered between the sentences of other text, with a question at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nested_learning.data.source import require_one_of
from nested_learning.data.tasks.babi import TASKS, Story, find_task, read_stories, split_stories
from nested_learning.data.tasks.haystack import NOISE, Tokens, essay, hide
from nested_learning.data.tasks.qa_documents import DocumentSpec, QAConfig, QADocuments
from nested_learning.data.text.text import paths_of, read_documents, require_texts
from nested_learning.data.tokenizers.choose_tokenizer import make_tokenizer
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.data.tokenizers.words import word_tokenizer
from nested_learning.errors import ConfigError, DataError
from nested_learning.typed import PathText


@dataclass(kw_only=True)
class BabilongConfig(QAConfig):
    """Stories of bAbI's `tasks`, drawn uniformly, hidden in other text. Source: BABILong, arXiv 2406.10149.

    `path`: the folder of bAbI's tasks, qa1_*.txt. `books`: the other text, as in data=text; null: noise sentences.
    The last fraction `held_out` of the stories of each task is for validation and for `evals=babilong`.
    """

    name: str = "babilong"
    min_length: int = 64
    path: PathText | None = None
    tasks: list[str] = field(default_factory=lambda: ["qa1"])
    books: PathText | list[PathText] | None = None
    held_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise ConfigError("data=babilong: data.path is missing; use data.path=<folder of bAbI, such as en-10k>")
        if not self.tasks:
            raise ConfigError(f"data.tasks=[]: must name at least one of {', '.join(TASKS)}; use data.tasks=[qa1]")
        for task in self.tasks:
            require_one_of(TASKS, tasks=task)
        if not 0 < self.held_out < 1:
            raise ConfigError(f"data.held_out={self.held_out}: must lie between 0 and 1, e.g. data.held_out=0.1")

    @property
    def evaluation(self) -> list[str]:
        """Return the overrides of `phase=eval` that test what this data teaches."""
        return ["evals=babilong", f"evals.babilong.path={self.path}"]

    def require_files(self, key: str = "data") -> None:
        """Raise DataError for a task or book that is missing."""
        for task in self.tasks:
            find_task(Path(str(self.path)), task, f"{key}.path")
        require_texts(self.books, f"{key}.books")

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "BabilongSource":
        """Read stories and books. Raises DataError for files in another format."""
        stories = [read_stories(find_task(Path(str(self.path)), task, "data.path")) for task in self.tasks]
        if tokenizer is None:
            is_words = self.tokenizer == "words"
            tokenizer = word_tokenizer(texts_of(stories)) if is_words else make_tokenizer(self.tokenizer, None, [])
        books = read_documents(paths_of(self.books), "data.books")
        return BabilongSource(self, seed, tokenizer, stories, books)


class BabilongSource(QADocuments[Story]):
    """A Source of documents with the facts of `stories` (a list per task) between sentences of `books`, or of noise."""

    def __init__(
        self,
        config: BabilongConfig,
        seed: int,
        tokenizer: Tokenizer,
        stories: Sequence[Sequence[Story]],
        books: Sequence[str],
    ) -> None:
        about = [repr([list(task) for task in stories]), repr(config.held_out), *books]
        lengths = (config.min_length, config.seq_len)
        super().__init__(tokenizer, seed, lengths, config.val_rows, config.train_on, about)
        self._writer = StoryWriter(tokenizer, books)
        splits = [split_stories(task, config.held_out) for task in stories]
        self._stories = {"train": [train for train, _ in splits], "validation": [held_out for _, held_out in splits]}
        for name, (train, held_out) in zip(config.tasks, splits, strict=True):
            if not train or not held_out:
                raise DataError(
                    f"data.held_out={config.held_out}: leaves a split of {name} without stories; give more stories, or "
                    "another data.held_out"
                )

    def spec(self, rng: np.random.Generator, split: str) -> DocumentSpec[Story]:
        """Draw a story."""
        stories = self._stories[split][rng.integers(len(self._stories[split]))]
        story = stories[rng.integers(len(stories))]
        num_answer = len(self._writer.answer(story))
        return DocumentSpec(story, self._writer.min_length(story) + num_answer, num_answer + 1)

    def document(self, rng: np.random.Generator, spec: DocumentSpec[Story], length: int) -> Tokens:
        """Return a document of `length` tokens: the facts in other text, the question, the answer."""
        answer = self._writer.answer(spec.content)
        context, question = self._writer.write(spec.content, rng, length - len(answer))
        return np.concatenate([context, question, answer])


class StoryWriter:
    """Writes stories as tokens of `tokenizer`, between the sentences of `books`, or of noise without books."""

    def __init__(self, tokenizer: Tokenizer, books: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.haystack = essay(books or [NOISE], tokenizer)
        # many stories share their sentences
        self._encoded: dict[str, Tokens] = {}

    def write(self, story: Story, rng: np.random.Generator, length: int | None) -> tuple[Tokens, Tokens]:
        """Return context and question, together `length` tokens; None: the facts alone as context.

        The facts keep their order; each follows the end of a random sentence. Raises DataError for a length below
        `min_length`. Source: BABILong, arXiv 2406.10149, section 2, which counts words where this counts tokens.
        """
        facts, question = self._facts(story), self.question(story)
        num_tokens = 0 if length is None else length - self.min_length(story)
        if num_tokens < 0:
            raise DataError(f"{length} tokens are too few for this story; use at least {self.min_length(story)}")
        parts = self.haystack.sample(num_tokens, np.sort(rng.random(len(facts))).tolist(), rng)
        return hide(parts, facts), question

    def min_length(self, story: Story) -> int:
        """Count the tokens of the facts and the question."""
        return sum(map(len, self._facts(story))) + len(self.question(story))

    def question(self, story: Story) -> Tokens:
        """Return the tokens of the question."""
        return self._encode(f"\n{story.question}")

    def answer(self, story: Story) -> Tokens:
        """Return the tokens of the answer."""
        return self._encode(f" {story.target}")

    def _facts(self, story: Story) -> list[Tokens]:
        return [self._encode(f" {fact}") for fact in story.facts]

    def _encode(self, text: str) -> Tokens:
        if text not in self._encoded:
            self._encoded[text] = self.tokenizer.encode(text)
        return self._encoded[text]


def texts_of(stories: Sequence[Sequence[Story]]) -> list[str]:
    """Return every different text in `stories`, and the noise sentences."""
    texts = dict.fromkeys([f" {NOISE}"])
    for story in (story for task in stories for story in task):
        texts |= dict.fromkeys([*(f" {fact}" for fact in story.facts), f"\n{story.question}", f" {story.target}"])
    return list(texts)
