"""Prompts of needle tasks as tokens, of an exact length."""

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from nested_learning.data.tasks.haystack import Haystack, Tokens, essay, hide, noise
from nested_learning.data.tasks.needle_tasks import NeedleTask, draw_distinct, draw_value
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import DataError

# depths of the needles that are not at the requested depth; RULER's own
DEPTHS = np.linspace(0, 1, 40)
# wrong values among the candidates of a prompt
DISTRACTORS = 8


class Prompt(NamedTuple):
    """A prompt, `context` and `question`, and the expected continuation, `answer`, all as tokens.

    `values`: those that the question asks for. `candidates`: the first of them and DISTRACTORS wrong ones, from the
    context where it has enough, in random order; `right` is the index of the correct one.
    """

    context: Tokens
    question: Tokens
    answer: Tokens
    values: list[str]
    candidates: list[str]
    right: int


class Needles(NamedTuple):
    """The needles of one prompt and its texts, as tokens. `keys`, `values`: theirs, with queried values first."""

    opening: Tokens
    sentences: list[Tokens]
    question: Tokens
    answer: Tokens
    keys: list[str]
    values: list[str]

    @property
    def num_tokens(self) -> int:
        """Count the tokens of a prompt without a haystack."""
        return sum(map(len, [self.opening, self.question, *self.sentences]))


class Prompts:
    """Makes prompts of a `task` with a `tokenizer`. `books`: the texts of an essay haystack.

    Raises DataError where a task needs books and there are none. Follows RULER's generator, see `needle_tasks`, with
    two differences: the length is exact (RULER's may be one sentence short), and the order of needles is random (RULER
    shuffles them the same way every time).
    """

    def __init__(self, task: NeedleTask, tokenizer: Tokenizer, books: Iterable[str] = ()) -> None:
        self.task, self.tokenizer, self.books = task, tokenizer, books

    def draw(self, rng: np.random.Generator) -> Needles:
        """Draw keys, values and queries."""
        task = self.task
        keys = draw_distinct(task.key, task.digits, task.num_keys, [], rng)
        values = {key: draw_distinct(task.value, task.digits, task.num_values, [], rng) for key in keys}
        queried = [keys[i] for i in rng.permutation(task.num_keys)[: task.num_queries]]
        queried_first = [*queried, *(key for key in keys if key not in queried)]
        all_values = [value for key in queried_first for value in values[key]]
        answers = all_values[: task.num_answers]
        opening, question, answer = (
            self.tokenizer.encode(text) for text in (task.opening(), task.question(queried), f" {', '.join(answers)}")
        )
        sentences = [self._sentence(task.needle(key, value)) for key in queried_first for value in values[key]]
        return Needles(opening, sentences, question, answer, keys, all_values)

    def make(self, rng: np.random.Generator, length: int, depth: float, reserve: int) -> Prompt:
        """Draw a prompt that has `length` tokens together with `reserve` tokens for the answer; see `hide`."""
        return self.hide(self.draw(rng), rng, length - reserve, depth)

    def hide(self, needles: Needles, rng: np.random.Generator, length: int, depth: float) -> Prompt:
        """Return a prompt of `length` tokens with `needles` in a haystack, the first queried one at `depth`.

        `depth`: a fraction of the haystack (0 to 1), moved back to the end of a sentence; other needles are at random
        depths. Raises DataError for a length that is too small.
        """
        num_tokens = length - needles.num_tokens
        if num_tokens < 0:
            raise DataError(f"{length} tokens are too few for needles and question; use at least {needles.num_tokens}")
        # wrong candidates come from the context where it has other values, so that copying any value is not enough
        haystack, in_context = self._haystack, needles.values
        if haystack is None:
            haystack, others = self._needle_haystack(num_tokens, needles.keys, rng)
            in_context = in_context + others
        depths = rng.choice(DEPTHS, len(needles.sentences), replace=False)
        # queried needles come first in `sentences`
        depths[0] = depth
        order = np.argsort(depths, kind="stable")
        parts = haystack.sample(num_tokens, depths[order].tolist(), rng)
        context = np.concatenate([needles.opening, hide(parts, [needles.sentences[i] for i in order])])
        answers = needles.values[: self.task.num_answers]
        return Prompt(context, needles.question, needles.answer, answers, *self._candidates(answers, in_context, rng))

    def _candidates(self, answers: list[str], in_context: list[str], rng: np.random.Generator) -> tuple[list[str], int]:
        """Return the first of `answers` among wrong values, those of the context preferred, and its index."""
        wrong = sorted(set(in_context) - set(answers))
        wrong = [wrong[i] for i in rng.permutation(len(wrong))[:DISTRACTORS]]
        missing = DISTRACTORS - len(wrong)
        wrong += draw_distinct(self.task.value, self.task.digits, missing, [*wrong, *answers], rng)
        right = int(rng.integers(DISTRACTORS + 1))
        return [*wrong[:right], answers[0], *wrong[right:]], right

    @cached_property
    def _haystack(self) -> Haystack | None:
        """Return the haystack that all prompts share; None for a haystack of needles, drawn for each prompt."""
        match self.task.haystack:
            case "noise":
                return noise(self.tokenizer)
            case "essay":
                return essay(self.books, self.tokenizer)
            case _:
                return None

    def _needle_haystack(
        self, num_tokens: int, keys: list[str], rng: np.random.Generator
    ) -> tuple[Haystack, list[str]]:
        """Draw a haystack of at least `num_tokens`, of needles with keys not in `keys`; return their values too."""
        task, length = self.task, 0
        sentences: list[Tokens] = []
        values: list[str] = []
        while length < num_tokens or not sentences:
            key, value = draw_value(task.key, task.digits, rng), draw_value(task.value, task.digits, rng)
            if key not in keys:
                sentences.append(self._sentence(task.needle(key, value)))
                values.append(value)
                length += len(sentences[-1])
        return Haystack(sentences), values

    def _sentence(self, text: str) -> Tokens:
        return self.tokenizer.encode(self.task.sentence(text))
