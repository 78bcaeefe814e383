"""Prompts of needle tasks as tokens, of exactly the length that one asks for."""

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from nested_learning.data.tasks.haystack import Haystack, Tokens, essay, hide, noise
from nested_learning.data.tasks.needle_tasks import NeedleTask, draw_distinct, draw_value
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import DataError

# a place of RULER's, of those that are not asked for
DEPTHS = np.linspace(0, 1, 40)
DISTRACTORS = 8


class Prompt(NamedTuple):
    """What is read, `context` and `question`, and what should follow, `answer`, all as tokens.

    `values`: all that are asked for. `candidates`: the first of them and DISTRACTORS others, of the context as far as
    it has any, in any order; number `right` is the value.
    """

    context: Tokens
    question: Tokens
    answer: Tokens
    values: list[str]
    candidates: list[str]
    right: int


class Needles(NamedTuple):
    """What is hidden and asked for, as tokens; the keys, and their values, those that are asked for first."""

    opening: Tokens
    needles: list[Tokens]
    question: Tokens
    answer: Tokens
    keys: list[str]
    values: list[str]

    @property
    def num_tokens(self) -> int:
        """Count the tokens of a prompt without a haystack."""
        return sum(map(len, [self.opening, self.question, *self.needles]))


class Prompts:
    """Makes prompts of a `task` in tokens of a `tokenizer`; `books` are the texts of an essay haystack.

    Raises DataError where a task needs books and there are none. Source: RULER's generator, see `needle_tasks`, but for
    the length, which is exact (RULER's is a sentence short at most), and the order of needles, which RULER shuffles the
    same way each time.
    """

    def __init__(self, task: NeedleTask, tokenizer: Tokenizer, books: Iterable[str] = ()) -> None:
        self.task, self.tokenizer, self.books = task, tokenizer, books

    def draw(self, rng: np.random.Generator) -> Needles:
        """Draw what is hidden and asked for."""
        task = self.task
        keys = draw_distinct(task.key, task.digits, task.num_keys, [], rng)
        values = {key: draw_distinct(task.value, task.digits, task.num_values, [], rng) for key in keys}
        asked = [keys[number] for number in rng.permutation(task.num_keys)[: task.num_queries]]
        asked_first = [*asked, *(key for key in keys if key not in asked)]
        told = [value for key in asked_first for value in values[key]]
        wanted = told[: task.num_answers]
        opening, question, answer = (
            self.tokenizer.encode(text) for text in (task.opening(), task.question(asked), f" {', '.join(wanted)}")
        )
        needles = [self._sentence(task.needle(key, value)) for key in asked_first for value in values[key]]
        return Needles(opening, needles, question, answer, keys, told)

    def make(self, rng: np.random.Generator, length: int, depth: float, reserve: int) -> Prompt:
        """Draw a prompt that has, with `reserve` tokens for the answer, `length` tokens; see `hide`."""
        return self.hide(self.draw(rng), rng, length - reserve, depth)

    def hide(self, secret: Needles, rng: np.random.Generator, length: int, depth: float) -> Prompt:
        """Make the prompt of `length` tokens in which `secret` is hidden, what is asked for first at `depth`.

        `depth` is a share of the haystack, at the end of a sentence; other needles are anywhere. Raises DataError for a
        length that is too small.
        """
        num_tokens = length - secret.num_tokens
        if num_tokens < 0:
            raise DataError(
                f"{length} tokens are too few for what is hidden and asked; use at least {secret.num_tokens}"
            )
        haystack, seen = self._haystack, secret.values
        if haystack is None:
            haystack, others = self._needles(num_tokens, secret.keys, rng)
            seen = seen + others
        depths = rng.choice(DEPTHS, len(secret.needles), replace=False)
        depths[0] = depth
        order = np.argsort(depths, kind="stable")
        pieces = haystack.cut(num_tokens, depths[order].tolist(), rng)
        context = np.concatenate([secret.opening, hide(pieces, [secret.needles[number] for number in order])])
        wanted = secret.values[: self.task.num_answers]
        return Prompt(context, secret.question, secret.answer, wanted, *self._candidates(wanted, seen, rng))

    def _candidates(self, wanted: list[str], seen: list[str], rng: np.random.Generator) -> tuple[list[str], int]:
        """Return the first value that is `wanted` among others, those `seen` in the context first; and its number."""
        others = sorted(set(seen) - set(wanted))
        others = [others[number] for number in rng.permutation(len(others))[:DISTRACTORS]]
        missing = DISTRACTORS - len(others)
        others += draw_distinct(self.task.value, self.task.digits, missing, [*others, *wanted], rng)
        right = int(rng.integers(DISTRACTORS + 1))
        return [*others[:right], wanted[0], *others[right:]], right

    @cached_property
    def _haystack(self) -> Haystack | None:
        """Return the haystack of all prompts; None where each has its own."""
        match self.task.haystack:
            case "noise":
                return noise(self.tokenizer)
            case "essay":
                return essay(self.books, self.tokenizer)
            case _:
                return None

    def _needles(self, num_tokens: int, keys: list[str], rng: np.random.Generator) -> tuple[Haystack, list[str]]:
        """Make a haystack of other needles, as long as is needed; return their values too."""
        task, length = self.task, 0
        found: list[Tokens] = []
        values: list[str] = []
        while length < num_tokens or not found:
            key, value = draw_value(task.key, task.digits, rng), draw_value(task.value, task.digits, rng)
            if key not in keys:
                found.append(self._sentence(task.needle(key, value)))
                values.append(value)
                length += len(found[-1])
        return Haystack(found), values

    def _sentence(self, text: str) -> Tokens:
        return self.tokenizer.encode(self.task.sentence(text))
