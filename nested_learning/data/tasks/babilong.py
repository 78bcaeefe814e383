"""`data=babilong`: stories of bAbI told between the sentences of other text, and the question at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nested_learning.data.source import require_one_of
from nested_learning.data.tasks.babi import TASKS, Story, find_task, read_stories, split_stories
from nested_learning.data.tasks.haystack import NOISE, Tokens, essay, hide
from nested_learning.data.tasks.needles import QAConfig, of_words
from nested_learning.data.tasks.qa_documents import DocumentSpec, QADocuments
from nested_learning.data.text.text import read_documents
from nested_learning.data.tokenizers.choose_tokenizer import make_tokenizer
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError, DataError


@dataclass(kw_only=True)
class BabilongConfig(QAConfig):
    """Stories of bAbI's `tasks`, each as likely, at random places of other text. Source: BABILong, arXiv 2406.10149.

    `path`: the folder of bAbI's tasks, qa1_*.txt. `books`: other text, null is noise. The last share `held_out` of the
    stories of each task is validation, and what `evals=babilong` asks.
    """

    name: str = "babilong"
    min_length: int = 64
    path: str | None = None
    tasks: list[str] = field(default_factory=lambda: ["qa1"])
    books: str | list[str] | None = None
    held_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise ConfigError("data=babilong: data.path is missing; use data.path=<folder of bAbI, such as en-10k>")
        if not self.tasks:
            raise ConfigError(f"data.tasks=[]: name some of {', '.join(TASKS)}")
        for task in self.tasks:
            require_one_of(TASKS, tasks=task)
        if not 0 < self.held_out < 1:
            raise ConfigError(f"data.held_out={self.held_out}: must lie between 0 and 1, e.g. data.held_out=0.1")

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "BabilongSource":
        """Read stories and books. Raises DataError for what is none, or rows that are too short."""
        stories = [read_stories(find_task(Path(str(self.path)), task, "data.path")) for task in self.tasks]
        if tokenizer is None:
            own = self.tokenizer == "words"
            tokenizer = of_words(words_of(stories)) if own else make_tokenizer(self.tokenizer, None, [])
        paths = [self.books] if isinstance(self.books, str) else self.books or []
        return BabilongSource(self, seed, tokenizer, stories, read_documents(paths))


class BabilongSource(QADocuments[Story]):
    """A Source of `stories`, those of each task, told between sentences of `books`, or noise."""

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
        self._telling = StoryWriter(tokenizer, books)
        parts = [split_stories(task, config.held_out) for task in stories]
        self._stories = {"train": [train for train, _ in parts], "validation": [other for _, other in parts]}
        for name, (train, other) in zip(config.tasks, parts, strict=True):
            if not train or not other:
                raise DataError(
                    f"data.held_out={config.held_out}: leaves no story of {name}; give more, or another share"
                )

    def spec(self, rng: np.random.Generator, split: str) -> DocumentSpec[Story]:
        """Draw a story."""
        of_task = self._stories[split][rng.integers(len(self._stories[split]))]
        story = of_task[rng.integers(len(of_task))]
        num_answer = len(self._telling.answer(story))
        return DocumentSpec(story, self._telling.shortest(story) + num_answer, num_answer + 1)

    def document(self, rng: np.random.Generator, spec: DocumentSpec[Story], length: int) -> Tokens:
        """Tell the story in a text of the right length."""
        answer = self._telling.answer(spec.what)
        context, question = self._telling.tell(spec.what, rng, length - len(answer))
        return np.concatenate([context, question, answer])


class StoryWriter:
    """Tells stories between the sentences of `books`, of noise where there is none, in tokens of `tokenizer`."""

    def __init__(self, tokenizer: Tokenizer, books: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.haystack = essay(books or [NOISE], tokenizer)
        # facts are told again and again
        self._known: dict[str, Tokens] = {}

    def tell(self, story: Story, rng: np.random.Generator, length: int | None) -> tuple[Tokens, Tokens]:
        """Return context and question of `length` tokens together; None: the facts alone.

        The facts are in their order, each at the end of a sentence, drawn with replacement. Raises DataError for a
        length that is too small. Source: BABILong, arXiv 2406.10149, section 2; it joins facts and text in words.
        """
        facts, question = self._facts(story), self.question(story)
        num_tokens = 0 if length is None else length - self.shortest(story)
        if num_tokens < 0:
            raise DataError(f"{length} tokens are too few for this story; use at least {self.shortest(story)}")
        pieces = self.haystack.cut(num_tokens, np.sort(rng.random(len(facts))).tolist(), rng)
        return hide(pieces, facts), question

    def shortest(self, story: Story) -> int:
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
        if text not in self._known:
            self._known[text] = self.tokenizer.encode(text)
        return self._known[text]


def words_of(stories: Sequence[Sequence[Story]]) -> list[str]:
    """Return texts of all that `stories` and noise are made of."""
    texts = dict.fromkeys([f" {NOISE}"])
    for story in (story for task in stories for story in task):
        texts |= dict.fromkeys([*(f" {fact}" for fact in story.facts), f"\n{story.question}", f" {story.target}"])
    return list(texts)
