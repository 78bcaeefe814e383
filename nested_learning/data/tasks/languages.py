"""Six formal languages: how a word is drawn, and what may follow each of its beginnings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Word = NDArray[np.int64]
Draw = Callable[[np.random.Generator, int], Word]
Follow = Callable[[Word], NDArray[np.int64]]

# of shuffle2: a closing bracket is this many tokens after its opening one
CLOSE = 2


@dataclass(frozen=True)
class Language:
    """A language over `letters`, whose words are multiples of `unit` long.

    `follow` lists the sets of what may come after a beginning of a word, letters and "." for the end of the word (of
    a word problem, whose letters any other may follow: the products that a beginning may have).
    `draw(rng, length)` returns a word as numbers of its letters, `after(word)` the number of the set that follows each
    of its beginnings, both int64 [length].
    """

    letters: Sequence[str]
    unit: int
    follow: tuple[str, ...]
    draw: Draw
    after: Follow


def draw_even_ones(rng: np.random.Generator, length: int) -> Word:
    """Draw random bits of which an even number is 1: the last bit sees to it."""
    bits = rng.integers(2, size=length)
    bits[-1] = bits[:-1].sum() % 2
    return bits


def draw_shuffle2(rng: np.random.Generator, length: int) -> Word:
    """Draw a shuffle of two sorts of balanced brackets, step by step.

    Brackets open and close equally often as far as there is something to close and room to close what is open, so that
    all four sets of what may follow are frequent at any length.
    """
    opened, word = [0, 0], []
    coins, sorts = rng.random(length), rng.integers(2, size=length)
    for left, coin, sort in zip(range(length, 0, -1), coins, sorts, strict=True):
        total = sum(opened)
        opens = total == 0 or (coin < 0.5 and total < left)
        if not opens and not opened[sort]:
            sort = 1 - sort
        opened[sort] += 1 if opens else -1
        word.append(sort if opens else sort + CLOSE)
    return np.array(word, dtype=np.int64)


def after_shuffle2(word: Word) -> NDArray[np.int64]:
    """Say which sorts are open: 1 for the first, 2 for the second, their sum for both."""
    opened = [np.cumsum((word == sort).astype(np.int64) - (word == sort + CLOSE)) > 0 for sort in (0, 1)]
    return opened[0] + 2 * opened[1]


def repeat(letters: list[int], sets: list[int]) -> tuple[Draw, Follow]:
    """Return `draw` and `after` of the language whose words repeat `letters`; after each comes its number in `sets`."""
    return lambda _, length: np.resize(letters, length), lambda word: np.resize(sets, len(word))


def blocks(num_letters: int) -> tuple[Draw, Follow]:
    """Return `draw` and `after` of a^n b^n ...: equally long blocks, each of another of `num_letters` letters."""

    def after(word: Word) -> NDArray[np.int64]:
        size, place = len(word) // num_letters, np.arange(len(word))
        # nobody knows how many a's there will be; from then on it is the number of blocks that are complete
        return np.where(place < size, 0, (place + 1) // size)

    return lambda _, length: np.repeat(np.arange(num_letters), length // num_letters), after


# an even number of ones, (aa)*, (abab)*, a^n b^n, a^n b^n c^n, and two sorts of brackets balanced each for itself
LANGUAGES = {
    "parity": Language("01", 1, ("01.", "01"), draw_even_ones, lambda word: np.cumsum(word) % 2),
    "aa": Language("a", 2, ("a", "a."), *repeat([0], [0, 1])),
    "abab": Language("ab", 4, ("b", "a", "a."), *repeat([0, 1], [0, 1, 0, 2])),
    "anbn": Language("ab", 2, ("ab", "b", "."), *blocks(2)),
    "anbncn": Language("abc", 3, ("ab", "b", "c", "."), *blocks(3)),
    "shuffle2": Language("([)]", 2, ("([.", "([)", "([]", "([)]"), draw_shuffle2, after_shuffle2),
}
