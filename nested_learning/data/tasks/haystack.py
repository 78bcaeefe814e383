"""Haystacks: sentences as tokens, sampled at any length, with other sentences inserted between them."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import DataError

# one line of RULER's noise haystack
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
# white space after the end of a sentence in a book
ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"'”’])\s+")

Tokens = NDArray[np.int64]


class Haystack:
    """Sentences as tokens in an endless loop. Raises DataError where there is no sentence."""

    def __init__(self, sentences: Iterable[Tokens]) -> None:
        kept = [sentence for sentence in sentences if len(sentence)]
        if not kept:
            raise DataError("the haystack has no sentence; give a longer text")
        self.tokens = np.concatenate(kept)
        self.ends = np.cumsum([len(sentence) for sentence in kept])

    def sample(self, num_tokens: int, depths: Sequence[float], rng: np.random.Generator) -> list[Tokens]:
        """Return `num_tokens` consecutive tokens, split between sentences into len(depths) + 1 parts.

        The tokens end with a random sentence, so the first sentence may be cut at its beginning. `depths`, ascending
        fractions of the tokens (0 to 1): part i ends at the last end of a sentence at or before `depths[i]`.
        """
        stop = int(self.ends[rng.integers(len(self.ends))])
        # negative where the loop is entered before its first sentence
        start = stop - num_tokens
        text = self.tokens.take(np.arange(start, stop), mode="wrap")
        return np.split(text, [max(self._end_before(start + round(depth * num_tokens)) - start, 0) for depth in depths])

    def _end_before(self, position: int) -> int:
        """Return the last end of a sentence at or before `position` of the endless loop."""
        lap, inside = divmod(position, len(self.tokens))
        before = int(np.searchsorted(self.ends, inside, side="right"))
        return lap * len(self.tokens) + (int(self.ends[before - 1]) if before else 0)


def hide(parts: Sequence[Tokens], hidden: Sequence[Tokens]) -> Tokens:
    """Join the `parts` of a haystack, with one of `hidden` after each part but the last."""
    pairs = [tokens for pair in zip(parts[: len(hidden)], hidden, strict=True) for tokens in pair]
    return np.concatenate([*pairs, *parts[len(hidden) :]])


def noise(tokenizer: Tokenizer) -> Haystack:
    """Return the noise haystack, whose only sentence is the line NOISE."""
    return Haystack([tokenizer.encode(f"{NOISE}\n")])


def essay(texts: Iterable[str], tokenizer: Tokenizer) -> Haystack:
    """Return the haystack of the sentences of `texts`. Raises DataError where there is none."""
    return Haystack(tokenizer.encode(f" {sentence}") for text in texts for sentence in sentences(text))


def sentences(text: str) -> list[str]:
    """Split a text into sentences without line ends."""
    return [sentence for sentence in ENDS.split(" ".join(text.split())) if sentence]
