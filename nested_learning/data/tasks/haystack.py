"""Text in which something is hidden: sentences as tokens, cut to any length, with others put between them."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import DataError

# RULER's haystack without a meaning, a line
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
# where a sentence of a book ends
ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"'”’])\s+")

Tokens = NDArray[np.int64]


class Haystack:
    """Sentences as tokens, one after the other and again from the first on. Raises DataError where there is none."""

    def __init__(self, sentences: Iterable[Tokens]) -> None:
        found = [sentence for sentence in sentences if len(sentence)]
        if not found:
            raise DataError("no sentence to hide anything between; give a longer text")
        self.tokens = np.concatenate(found)
        self.ends = np.cumsum([len(sentence) for sentence in found])

    def cut(self, num_tokens: int, depths: Sequence[float], rng: np.random.Generator) -> list[Tokens]:
        """Return exactly `num_tokens` tokens, which end where a sentence does, cut into pieces between sentences.

        Which sentence is the last is drawn. Each of `depths`, shares of the whole in rising order, is where a piece
        ends: at the last end of a sentence up to there. What is left out is the beginning, like that of a torn page.
        """
        stop = int(self.ends[rng.integers(len(self.ends))])
        start = stop - num_tokens
        text = self.tokens.take(np.arange(start, stop), mode="wrap")
        return np.split(text, [max(self._end_before(start + round(depth * num_tokens)) - start, 0) for depth in depths])

    def _end_before(self, place: int) -> int:
        """Return the end of a sentence at or before `place`, any number of times around."""
        lap, inside = divmod(place, len(self.tokens))
        before = int(np.searchsorted(self.ends, inside, side="right"))
        return lap * len(self.tokens) + (int(self.ends[before - 1]) if before else 0)


def hide(pieces: Sequence[Tokens], hidden: Sequence[Tokens]) -> Tokens:
    """Return the `pieces` of a haystack with what is `hidden` between them, one after each piece but the last."""
    parts = [part for pair in zip(pieces[: len(hidden)], hidden, strict=True) for part in pair]
    return np.concatenate([*parts, *pieces[len(hidden) :]])


def noise(tokenizer: Tokenizer) -> Haystack:
    """Return the haystack of noise, a line a sentence."""
    return Haystack([tokenizer.encode(f"{NOISE}\n")])


def essay(texts: Iterable[str], tokenizer: Tokenizer) -> Haystack:
    """Return the sentences of `texts` as a haystack. Raises DataError where there is none."""
    return Haystack(tokenizer.encode(f" {sentence}") for text in texts for sentence in sentences(text))


def sentences(text: str) -> list[str]:
    """Cut a text into sentences, each on one line."""
    return [sentence for sentence in ENDS.split(" ".join(text.split())) if sentence]
